"""The engine ray on a real cluster of two nodes: the rows of the engine local, whatever ends on the way."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest

from convert.errors import FileError
from convert.gguf_file import as_field, copied_fields, write_gguf
from convert.header import check_header
from convert.merge import merged_plans, merged_rows
from toolkit.apps.batch import SOME_ROWS_FAILED
from toolkit.apps.cluster.parts import MANIFEST, Parts
from toolkit.apps.cluster.pool import processors_of
from toolkit.apps.cluster.run import batch_on_ray, portable
from toolkit.apps.cluster.sources import Place, cut, find_sources, measure, open_sources, part_size
from toolkit.apps.predictor import Predictor
from toolkit.apps.tally import Tally
from toolkit.base import find_base_gguf, load_base
from toolkit.cli import main
from toolkit.errors import DataError, ModelError, UsageError
from toolkit.settings import Settings

# Ray Data copies all of its settings, also those that it has deprecated itself.
OWN = "use_push_based_shuffle|use_polars|target_shuffle_max_block_size|use_arrow_tensor_v2"
pytestmark = pytest.mark.filterwarnings(f"ignore:`({OWN})` is deprecated")

STORE = 80 << 20
NOISE = 0.001  # between the same text in two batches


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default base with the first of its thirty layers alone, in F32: fast."""
    base = check_header(find_base_gguf(load_base("smollm2-135m")))
    kept = tuple(t for t in base.tensors if not t.name.startswith("blk.") or t.name.startswith("blk.0."))
    path = tmp_path_factory.mktemp("shallow") / "shallow.gguf"
    fields = copied_fields(base) | {"llama.block_count": as_field(1)}
    plans = merged_plans(replace(base, tensors=kept), "F32")
    write_gguf(path, "llama", fields, plans, lambda plan: merged_rows(base, plan.name, None))
    return path


@pytest.fixture(scope="module", autouse=True)
def as_urgent_as_the_rest() -> Iterator[None]:
    """Ray's workers step back behind everything else that runs; on a busy machine that is for minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one processor each."""
    from toolkit.apps.cluster.pool import import_ray

    ray = import_ray()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def settings(shallow: Path) -> Settings:
    return Settings(model=str(shallow), mode="fast", threads=1)


def write_rows(path: Path, count: int, first: int = 0) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        for n in range(first, first + count):
            text = "" if n % 50 == 7 else f"Text number {n}: I am {'glad' if n % 3 else 'sad'} about it."
            file.write(json.dumps({"id": f"row {n}", "comment": text}) + "\n")
    return path


def read_out(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The same rows; numbers may part as those of one text do in two batches, which arrive as they happen to."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key, value in other.items():
            is_number = isinstance(value, (float, dict))
            assert mine[key] == (pytest.approx(value, abs=NOISE) if is_number else value), (key, mine["text"])


def test_both_engines_write_the_same_rows(nodes: Any, shallow: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", 130)
    with open(source, "a", encoding="utf-8") as file:
        file.write('{"id": "x", "comment": ["no", "text"]}\n')
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    asked = ["batch", str(source), "--model", str(shallow), "--mode", "fast", "--threads", "1", "-q"]
    assert main([*asked, "-o", str(theirs)]) == SOME_ROWS_FAILED
    assert main([*asked, "-o", str(ours), "--engine", "ray", "--address", nodes.address]) == SOME_ROWS_FAILED
    alike(read_out(ours), read_out(theirs))
    last = read_out(ours)[130]
    assert (last["id"], last["status"], last["error"]) == ("x", "error", "The text is no string but list.")
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "ours.jsonl", "theirs.jsonl"}


def test_a_folder_in_and_parquet_parts_out(nodes: Any, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(3):
        write_rows(tmp_path / "in" / f"{n}.jsonl", 30, 30 * n)
    out = tmp_path / "out.parquet"
    told: list[str] = []
    options: dict[str, Any] = {"address": nodes.address, "rows_a_part": 20, "say": lambda *lines: told.extend(lines)}
    tally = batch_on_ray(str(tmp_path / "in"), f"{out}/", settings, **options)
    assert tally.rows == 90
    assert "3 files are read as the first one is." in told
    assert len(list(out.glob("part-*.parquet"))) == 6  # no part reaches over the end of a file
    rows = [row for path in sorted(out.glob("part-*")) for row in parquet.read_table(path).to_pylist()]
    assert [(row["row"], row["id"]) for row in rows] == [(n, f"row {n}") for n in range(90)]

    lost = out / "part-000002.parquet"
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*") if path != lost}
    lost.unlink()
    with pytest.raises(UsageError, match="holds a run already"):
        batch_on_ray(str(tmp_path / "in"), f"{out}/", settings, **options)
    with pytest.raises(UsageError, match="another mode: 'fast', not 'explain'"):
        batch_on_ray(
            str(tmp_path / "in"), f"{out}/", settings.model_copy(update={"mode": "explain"}), resume=True, **options
        )
    assert batch_on_ray(str(tmp_path / "in"), f"{out}/", settings, resume=True, **options).rows == 90
    assert "Resuming after 70 of 90 rows." in told
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    write_rows(tmp_path / "in" / "2.jsonl", 31, 60)
    with pytest.raises(DataError, match="The input has changed"):
        batch_on_ray(str(tmp_path / "in"), f"{out}/", settings, resume=True, **options)


def test_a_model_that_cannot_be_had_is_one_sentence(nodes: Any, settings: Settings, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    source = write_rows(tmp_path / "in.jsonl", 5)
    with pytest.raises(Exception, match="damaged") as caught:
        batch_on_ray(
            str(source), str(tmp_path / "o.jsonl"), settings.model_copy(update={"model": str(damaged)}),
            address=nodes.address,
        )  # fmt: skip
    assert getattr(caught.value, "hint", None)
    assert not (tmp_path / "o.jsonl").exists()


def engines_below(pid: int) -> list[psutil.Process]:
    """The processes that hold a model, below a process."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("worker_process:main" in word for word in process.cmdline()):
                found.append(process)
    return found


class Killer(threading.Thread):
    """Kills a node as soon as it holds a model and parts are coming."""

    def __init__(self, nodes: Any, manifest: Path) -> None:
        super().__init__()
        self._nodes, self._manifest = nodes, manifest
        self.engines: list[psutil.Process] = []
        self.parts = 0

    def run(self) -> None:
        doomed = next(iter(self._nodes.worker_nodes))
        raylet = doomed.all_processes["raylet"][0].process.pid
        while not (self.engines and self.parts):
            time.sleep(0.05)
            self.engines = engines_below(raylet)
            self.parts = self._manifest.read_bytes().count(b"\n") - 1 if self._manifest.exists() else 0
        self._nodes.remove_node(doomed, allow_graceful=False)


def test_a_killed_node_costs_no_row(nodes: Any, settings: Settings, tmp_path: Path) -> None:
    """The last of the tests on two nodes: afterwards there is one."""
    count, size = 3000, 50
    source, out = write_rows(tmp_path / "in.jsonl", count), tmp_path / "out.jsonl"
    killer, told = Killer(nodes, tmp_path / "out.jsonl.parts" / MANIFEST), list[str]()
    killer.start()
    tally = batch_on_ray(
        str(source), str(out), settings, address=nodes.address, workers=2, rows_a_part=size,
        say=lambda *lines: told.extend(lines),
    )  # fmt: skip
    killer.join()
    assert killer.parts < count // size - 10, "the node was killed too late to prove anything"
    assert any(line.startswith("Parts that were lost with their workers") for line in told)
    assert tally.rows == count
    assert [(row["id"], row["row"]) for row in read_out(out)] == [(f"row {n}", n) for n in range(count)]
    assert psutil.wait_procs(killer.engines, timeout=20)[1] == []


def listening(processes: Iterable[psutil.Process]) -> set[tuple[int, str]]:
    """Processes and the addresses at which they listen."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # what ended meanwhile listens nowhere
            heard = [one.laddr for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
            found |= {(process.pid, address.ip.removeprefix("::ffff:")) for address in heard}
    return found


def test_a_cluster_of_this_machine_keeps_to_itself(shallow: Path, tmp_path: Path) -> None:
    """Nothing of it listens on the network, and nothing of it is left."""
    from toolkit.apps.cluster.pool import cluster

    me = psutil.Process()
    before = {me, *me.children(recursive=True)}
    heard = listening(before)
    with cluster("local", 1) as ray:
        assert processors_of(ray) == 1
        source, out = write_rows(tmp_path / "in.jsonl", 5), tmp_path / "out.csv"
        assert main(["batch", str(source), "-o", str(out), "--engine", "ray", "--model", str(shallow), "-q"]) == 0
        started = set(me.children(recursive=True)) - before
        addresses = {address for _, address in listening({me, *started}) - heard}
    assert addresses == {"127.0.0.1"}
    assert psutil.wait_procs(started, timeout=30)[1] == []
    assert len(out.read_text(encoding="utf-8").splitlines()) == 6


def test_no_cluster_at_the_address_is_said_soon(settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"No Ray cluster answers at {address}: .*refused") as caught:
            batch_on_ray(
                str(write_rows(tmp_path / "in.jsonl", 1)), str(tmp_path / "o.jsonl"), settings, address=address
            )
    assert caught.value.hint == "Start one: ray start --head"
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {"in.jsonl"}


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra."""
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
def test_no_ray_is_one_sentence(shallow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["batch", str(write_rows(tmp_path / "in.jsonl", 1)), "--model", str(shallow), "--mode", "fast"]
    assert main([*asked, "-o", str(tmp_path / "o.jsonl"), "--engine", "ray"]) == 2
    assert "needs the package ray" in (told := capsys.readouterr().err)
    assert 'pip install "emotion-lrm[ray]"' in told
    assert main([*asked, "-o", str(tmp_path / "o.jsonl"), "-q"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "parts/"), "written by the engine ray"),
        (("-o", "o.jsonl", "--address", "auto"), "--address is for the engine ray"),
        (("-o", "o.jsonl", "--engine", "ray", "--report", "r"), "writes no report"),
        (("-o", "s3://bucket/o.jsonl", "--engine", "ray"), "OUTPUT is no path"),
        (("-o", "o.txt", "--engine", "ray"), "does not say its form"),
    ],
)
def test_what_an_engine_cannot_do_is_said_at_once(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["batch", str(write_rows(tmp_path / "in.jsonl", 1)), *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# Without a cluster


def test_a_predictor_travels_without_its_model(shallow: Path) -> None:
    predictor = Predictor(str(shallow), mode="fast")
    try:
        first = predictor(["I am glad.", " ", "I am sad."], ids=["a", "b", "c"])
        assert [(row["id"], row["status"]) for row in first] == [("a", "ok"), ("b", "empty"), ("c", "ok")]
        packed = pickle.dumps(predictor)
        assert len(packed) < 1000
        copy = pickle.loads(packed)
        assert copy == predictor
        assert copy(["I am glad."])[0]["scores"] == first[0]["scores"]  # by the model that is loaded already
    finally:
        predictor.close()


def test_a_predictor_works_in_another_process(shallow: Path) -> None:
    code = (
        "import pickle, sys\n"
        "print(pickle.load(sys.stdin.buffer)(['I am glad.'])[0]['status'])\n"
    )  # fmt: skip
    packed = pickle.dumps(Predictor(str(shallow), mode="fast"))
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.split() == [b"ok"]


def test_a_predictor_takes_what_a_column_holds(shallow: Path) -> None:
    predictor = Predictor(str(shallow), mode="fast")
    try:
        rows = predictor([None, float("nan"), 7, ["x"]], ids=["a", None, 3, float("nan")])
        assert [(row["id"], row["status"]) for row in rows] == [("a", "empty"), (1, "empty"), (3, "ok"), (3, "error")]
        with pytest.raises(ValueError, match="shorter"):
            predictor(["one", "two"], ids=["a"])
    finally:
        predictor.close()


def test_a_predictor_of_no_model_says_so() -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        Predictor("no-such-model")(["text"])


def test_a_shipped_model_travels_by_its_name(default_model_path: Path) -> None:
    predictor = portable(Settings(mode="fast"), 2)
    assert (predictor.model, predictor.threads) == (default_model_path.stem, 2)
    assert portable(Settings(model=default_model_path.stem), 2).model == default_model_path.stem
    assert portable(Settings(model=str(default_model_path)), 2).model == str(default_model_path)


def test_files_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "sub/c.csv", ".hidden.csv", "_manifest.csv", "d.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\na\n", encoding="utf-8")

    def names(pattern: str) -> list[str]:
        return [os.path.relpath(source.place, tmp_path) for source in find_sources(pattern)]

    assert names(str(tmp_path)) == ["a.csv", "b.csv", "d.txt", "sub/c.csv"]
    assert names(f"{tmp_path}/*.csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/**/*.csv") == ["a.csv", "b.csv", "sub/c.csv"]
    assert [source.place for source in find_sources(f"file://{tmp_path}/b.csv")] == [f"file://{tmp_path}/b.csv"]
    with pytest.raises(FileError, match="There is no file"):
        find_sources(f"{tmp_path}/*.parquet")


def test_an_address_is_read_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,text\n1,one\n2,two\n", encoding="utf-8")
    sources = find_sources(f"file://{tmp_path}/a.csv")
    table, rows = measure(sources[0], open_sources(sources))
    assert rows == 2
    assert [row.text for row in Place(sources, [table]).rows(cut([2], 5)[0])] == ["one", "two"]


def test_the_first_file_decides_and_numbers_run_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("note,text\nx,one\nx,two\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,note\nthree,x\n", encoding="utf-8")
    sources = find_sources(str(tmp_path))
    like = open_sources(sources)
    tables, rows = zip(*(measure(source, like) for source in sources), strict=True)
    place = Place(sources, tables)
    found = [row for one in cut(rows, 1) for row in place.rows(one)]
    assert [(row.number, row.id, row.text) for row in found] == [(0, 0, "one"), (1, 1, "two"), (2, 2, "three")]
    again = place.rows(cut(rows, 2)[0])  # a slice that comes again is read again
    assert [row.text for row in again] == ["one", "two"]
    (tmp_path / "b.csv").write_text("body,note\nthree,x\n", encoding="utf-8")
    with pytest.raises(DataError, match="There is no column 'text'"):
        measure(sources[1], like)


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", 5)
    sources = find_sources(str(path))
    table, rows = measure(sources[0], open_sources(sources))
    write_rows(path, 4)
    with pytest.raises(DataError, match="became shorter"):
        Place(sources, [table]).rows(cut([rows], 10)[0])


def test_parts_are_neither_tiny_nor_endless() -> None:
    assert [part_size(rows, 2) for rows in (1, 100, 10_000, 1_000_000_000)] == [32, 32, 312, 10_000]


def test_a_manifest_that_was_cut_short_forgets_its_last_line(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out", "jsonl")
    assert parts.begin({"input": "x"}, 10, resume=False) == 10
    for number in range(3):
        (tmp_path / "out" / f"part-{number:06d}.jsonl").write_bytes(b"{}\n")
        parts.note(number, Tally(rows=10))
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-5])
    again = Parts(tmp_path / "out", "jsonl")
    assert again.begin({"input": "x"}, 99, resume=True) == 10
    assert (again.done, again.total.rows) == ({0, 1}, 20)
    again.note(2, Tally(rows=10))
    last = Parts(tmp_path / "out", "jsonl")
    last.begin({"input": "x"}, 10, resume=True)
    assert last.done == {0, 1, 2}


def test_a_folder_with_something_else_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        batch_on_ray(str(write_rows(tmp_path / "in.jsonl", 1)), f"{tmp_path}/out/", settings, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").exists()
