"""The bench command: honest arithmetic, the keys of its JSON, tunings that are found again, growth on few texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from convert.file_types import MIXED, default_file_type
from convert.gguf_file import CONTENT_HASH
from convert.header import check_header
from toolkit.apps import bench as bench_command
from toolkit.apps.bench import bench
from toolkit.apps.quality import Loss, labelled_rows
from toolkit.assets import asset
from toolkit.benchmark import file_types
from toolkit.benchmark.file_types import CANDIDATES, Tried, choose, try_file_types
from toolkit.benchmark.growth import Growth, long_text, measure_growth, widest_gaps
from toolkit.benchmark.measure import OURS, Measured, Plan, bench_texts, file_type_of, measure_single, measure_startup
from toolkit.benchmark.rivals import ORDINARY, SERVER
from toolkit.benchmark.rounds import Contender, Row, rows_of, spread, take_turns
from toolkit.benchmark.show import bench_figure, draw_bench, print_bench, print_growth
from toolkit.benchmark.tune import TEXTS, choices, search
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.inference import store
from toolkit.inference import tuning as kept_tunings
from toolkit.inference.engine import Engine
from toolkit.inference.tuning import (
    Tuning,
    available_threads,
    busy_elsewhere,
    find_file_type,
    find_tuning,
    free_threads,
    keep_file_type,
    keep_tuning,
    processor,
)
from toolkit.settings import Settings

MODEL = {CONTENT_HASH: "ab" * 32}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(tmp_path))
    return tmp_path


def test_medians_of_interleaved_turns_without_the_first() -> None:
    order: list[str] = []
    seconds = {"a": iter([9.0, 2.0, 4.0, 1.0]), "b": iter([9.0, 5.0, 5.0, 20.0])}
    now = 0.0

    def work(name: str) -> int:
        nonlocal now
        order.append(name)
        now += next(seconds[name])
        return 20

    both = [Contender("a", "fast", 20, lambda: work("a")), Contender("b", "fast", 20, lambda: work("b"))]
    assert take_turns(both, 3, clock=lambda: now) == [10.0, 4.0]
    assert order == ["a", "b"] * 4


def test_a_ratio_is_to_the_ordinary_way_in_the_same_mode() -> None:
    names = [(ORDINARY, "fast"), (OURS, "fast"), (ORDINARY, "explain"), (OURS, "explain"), (OURS, "other")]
    contenders = [Contender(name, mode, texts, lambda: 1) for texts, (name, mode) in enumerate(names, 10)]
    rows = rows_of(contenders, [5.0, 60.0, 2.0, 18.0, 7.0], ORDINARY, SERVER)
    assert [row.ratio_to_ordinary for row in rows] == [1.0, 12.0, 1.0, 9.0, None]
    assert [row.ratio_to_server for row in rows] == [None] * 5
    assert [row.texts for row in rows] == [10, 11, 12, 13, 14]
    served = rows_of(
        [*contenders, Contender(SERVER, "fast", 48, lambda: 1)], [5.0, 60.0, 2, 18, 7, 20.0], ORDINARY, SERVER
    )
    assert [row.ratio_to_server for row in served] == [0.25, 3.0, None, None, None, 1.0]


def test_a_small_sample_is_as_long_as_the_whole() -> None:
    texts = bench_texts()
    assert len(texts) == 300
    few = spread(texts, 12)
    assert len(set(few)) == 12
    average = [sum(map(len, some)) / len(some) for some in (few, texts)]
    assert average[0] == pytest.approx(average[1], rel=0.05)
    assert few == [text for text in texts if text in few]  # in the order of the file: neighbours differ in length
    assert spread(texts, 300) == texts
    assert spread(["four", "to", "threes"], 1) == ["four"]
    assert Plan().texts == 300
    assert Plan(texts=96).ordinary_texts == 12
    assert Plan(texts=8).ordinary_texts == 4


def test_a_tuning_is_found_again_on_the_same_machine_and_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Tuning(threads=2, single_threads=1, active=24, rows=48)
    assert find_tuning(MODEL) is None
    assert keep_tuning(MODEL, tuning, {"model": "m"}) == cache / "tuning.json"
    keep_tuning({CONTENT_HASH: "cd" * 32}, Tuning(), {"model": "n"})
    assert find_tuning(MODEL) == tuning
    assert find_tuning({CONTENT_HASH: "ef" * 32}) is None
    monkeypatch.setattr(kept_tunings, "processor", lambda: "another processor")
    assert find_tuning(MODEL) is None


def test_a_model_without_a_hash_keeps_none(cache: Path) -> None:
    assert keep_tuning({}, Tuning(), {}) is None
    assert not (cache / "tuning.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"KEY": {"tuning": {"active": 900}}}',
        '{"KEY": {"tuning": {"rows": 513}}}',
        '{"KEY": {"tuning": {"unheard": 1}}}',
        '{"KEY": 1}',
    ],
)
def test_a_damaged_tuning_counts_as_none(cache: Path, content: str) -> None:
    key = kept_tunings.machine_and_model(MODEL)
    assert key
    (cache / "tuning.json").write_text(content.replace("KEY", key))
    assert find_tuning(MODEL) is None
    keep_tuning(MODEL, Tuning(active=16), {})
    assert find_tuning(MODEL) == Tuning(active=16)


def test_the_file_type_that_was_measured_is_built_from_then_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = store.load_shipped()
    adapter = asset("models", "adapters", shipped.models[shipped.default].adapter)
    assert find_file_type(adapter) is None
    assert store.parse_name(None) == (shipped.default, default_file_type())
    keep_file_type(adapter, "Q5_0", {"model": shipped.default})
    keep_tuning(MODEL, Tuning(active=16), {})
    assert store.parse_name(None) == (shipped.default, "Q5_0")
    assert store.model_path(None).name == f"{shipped.default}-q5_0.gguf"
    assert store.parse_name(f"{shipped.default}-f16") == (shipped.default, "F16")
    for damaged in ("Q3_NONE", None, 7):
        (cache / "tuning.json").write_text((cache / "tuning.json").read_text().replace('"Q5_0"', json.dumps(damaged)))
        assert store.parse_name(None) == (shipped.default, default_file_type())
        keep_file_type(adapter, "Q5_0", {})
    monkeypatch.setattr(kept_tunings, "processor", lambda: "another processor")
    assert store.parse_name(None) == (shipped.default, default_file_type())


def test_the_fastest_type_that_loses_nothing_is_chosen() -> None:
    def tried(file_type: str, rate: float, lost: float, macro_f1: float = 0.0) -> Tried:
        return Tried(file_type, rate, Loss(lost, 0.004, 0.01, macro_f1, 0.001))

    found = [
        tried("BF16", 10.0, 0.0),
        tried("Q8_0", 10.2, 0.001),
        tried("F16", 11.0, -0.001),
        tried("Q4_0", 20.0, 0.02),
        tried("Q5_0", 19.0, 0.0, 0.004),
    ]
    assert [one.refused for one in found] == [False, False, False, True, True]
    assert {default_file_type(), MIXED} < set(CANDIDATES)
    assert "Q4_0" not in CANDIDATES
    assert choose(found, "BF16").file_type == "F16"
    assert choose(found[:2], "BF16").file_type == "BF16"  # a hair's breadth is no reason to build another file
    assert choose(found[:2], "Q4_0").file_type == "Q8_0"
    with pytest.raises(EmotionLRMError, match="loses more"):
        choose(found[3:], "BF16")


def test_types_are_judged_and_timed(shallow_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_types, "_TEXTS", 3)
    rows, _ = labelled_rows(limit=12)
    paths = {kind: shallow_path(kind, layers=1) for kind in ("F32", "Q8_0", "Q4_0")}
    steps: list[int] = []
    found = try_file_types(paths, paths["F32"], rows, bench_texts(), lambda done, total, _: steps.append(total - done))
    assert [one.file_type for one in found] == list(paths)
    assert found[0].loss == Loss(0.0, 0.0, 0.0, 0.0, 0.0)
    assert 0 < found[1].loss.kl < found[2].loss.kl
    assert all(one.texts_per_second > 0 for one in found)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0


def test_the_search_keeps_what_is_clearly_better() -> None:
    def score(tuning: Tuning, _: str) -> float:
        better = (tuning.active == 24) + 0.1 * (tuning.active == 48) + (tuning.rows == 48)
        return 9.0 + better - 5 * (tuning.threads != 2)

    best, level = search(score, choices(2, 512))
    assert best == Tuning(threads=2, single_threads=2, active=24, rows=48)
    assert level == 11.0
    assert choices(1, 63)["threads"] == [1]
    assert choices(1, 63)["rows"] == [48]
    assert max(choices(1, 63)["active"]) * 3 <= TEXTS


def test_the_engine_reads_in_passes_of_the_tuned_size(shallow_path: Callable[..., Path]) -> None:
    def read(rows: int) -> tuple[int, list[bytes]]:
        engine = Engine(shallow_path("F32", layers=1), threads=1, tuning=Tuning(rows=rows))
        try:
            windows = [engine._reader.split(text)[0] for text in spread(bench_texts(), 12)]
            passes = list(engine._reader.passes(windows, Lens.AUTHOR))
        finally:
            engine.close()
        return len(passes), [prompt.reading.posterior.tobytes() for one in passes for prompt in one]

    (many, small), (few, large), (fewest, largest) = read(32), read(63), read(512)
    assert many > few >= fewest
    assert small == large == largest


def test_no_more_threads_than_others_leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tunings, "available_threads", lambda: 4)
    monkeypatch.setattr(kept_tunings.os, "cpu_count", lambda: 8)
    load = tmp_path / "loadavg"
    for running, free in ((1, 4), (5, 4), (7, 2), (8, 1), (30, 1)):
        load.write_text(f"0.10 0.20 0.30 {running}/400 1234\n")
        assert busy_elsewhere(load) == running - 1
        assert free_threads(load) == free
    assert free_threads(tmp_path / "missing") == 4


@pytest.mark.parametrize(
    ("told", "threads"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("max 100000\n", 8), ("", 8), (None, 8)],
)
def test_no_more_threads_than_a_container_pays_for(
    told: str | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tunings.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    if told is not None:
        quota.write_text(told)
    assert available_threads(quota) == threads


def test_tuned_threads_give_way_to_what_is_free() -> None:
    assert Tuning().among(4) == (4, 4)
    assert Tuning(threads=3, single_threads=2).among(4) == (3, 2)
    assert Tuning(threads=3, single_threads=2).among(1) == (1, 1)


def test_the_processor_is_named_by_what_the_kernel_tells(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(
        "processor : 0\nmodel name : Some CPU\ncpu family : 6\nmodel : 143\nstepping : 8\n\nprocessor : 1\n"
    )
    assert processor(told) == "Some CPU (6/143/8)"
    assert processor(tmp_path / "missing")


def test_growth_is_told_by_the_slowest() -> None:
    found = [Growth("texts", "fast", amount, 50.0, ratio, None) for amount, ratio in ((10, 1.0), (99, 0.8), (999, 0.9))]
    found += [Growth("texts", "explain", 10, 4.0, 1.0, None), Growth("words", "fast", 9, 1.0, 1.0, None)]
    assert widest_gaps(found) == {"texts, fast": pytest.approx(0.2), "texts, explain": 0, "words, fast": 0}
    assert long_text(["a b", "c"], 5) == "a b c a b"


@pytest.mark.parametrize(
    ("slower", "gap"),
    [
        (lambda run, _: 1 + 0.5 * run, 0),  # the machine, evenly
        (lambda run, _: 1 if run < 3 else 2, 1 / 6),  # the machine, at once: a third of the change
        (lambda _, amount: 1 if amount < 300 else 1.25, 1 / 5),  # the engine, with the amount
    ],
)
def test_a_machine_that_slows_down_does_not_look_like_growth(
    slower: Callable[[int, int], float], gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lengths, steps = [0.0], list[float](), list[tuple[int, int]]()

    def read(_: object, texts: Iterable[str], _mode: str) -> int:
        some = list(texts)
        clock[0] += len(some) * slower(len(lengths), len(some))
        lengths.append(sum(map(len, some)) / len(some))
        return len(some)

    monkeypatch.setattr("toolkit.benchmark.growth.read_all", read)
    monkeypatch.setattr("toolkit.benchmark.growth.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("toolkit.benchmark.growth.resident_bytes", lambda: len(lengths))
    engine: Any = None
    texts = ["a" * n for n in range(1, 31)]
    found = measure_growth(engine, texts, (3, 30, 300), (), (), lambda done, of, _name: steps.append((done, of)))
    assert [growth.amount for growth in found] == [3, 30, 300]
    assert widest_gaps(found) == {"texts, fast": pytest.approx(gap)}
    assert [growth.memory for growth in found] == [2, 3, 5]  # the first run makes warm
    assert steps == [(done, 7) for done in range(7)]
    assert lengths[1:] == pytest.approx([15.5] * 7, abs=1)  # a few texts are as long as many


MACHINE = {
    "cpu": "Some CPU", "usable": 2, "cores": 8, "flags": ["avx2", "amx_bf16"], "llama_cpp_python": "1.2.3",
    "build": "CPU : AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 |", "kernel": "ours for BF16 and attention",
}  # fmt: skip


@pytest.fixture
def measured() -> Measured:
    rows = [
        Row(ORDINARY, "fast", 37, 5.0, 1.0, 0.25), Row(SERVER, "fast", 48, 20.0, 4.0, 1.0),
        Row(OURS, "fast", 300, 60.0, 12.0, 3.0), Row(OURS, "explain", 300, 7.0, None),
    ]  # fmt: skip
    roof = {"tokens_per_second": 2.0, "fast_tokens_per_second": 1.0, "share": 0.5}
    single = {"fast": 0.06, "bare_decode": 0.05, "ratio": 1.2}
    memory = {"file": 270_000_000, "kv_cache": 1, "allowed": 520_000_001, "peak": None}
    return Measured("m-bf16", "BF16", 2, rows, roof, single, memory)


def test_the_picture_tells_the_machine_the_build_and_the_threads(tmp_path: Path, measured: Measured) -> None:
    both = [measured, replace(measured, file_type="Q8_0", threads=1)]
    told = " ".join(bench_figure(MACHINE, both).get_suptitle().split())
    for part in ("Some CPU, 2 of 8 cores, avx2 amx_bf16", "1.2.3: CPU : AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 |",
                 "threads: BF16 2, Q8_0 1"):  # fmt: skip
        assert part in told
    draw_bench(MACHINE, both, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_tells_how_many_texts_each_read(measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    print_bench(MACHINE, [measured], {"help": 0.1, "one_text": 1.0}, sys.stdout)
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [*ORDINARY.split(), "fast", "37", "5.00", "1.0", "0.2"] in cells
    assert [OURS, "fast", "300", "60.00", "12.0", "3.0"] in cells
    assert [OURS, "explain", "300", "7.00"] in cells


def test_the_file_type_is_read_from_the_file(shallow_path: Callable[..., Path], tmp_path: Path) -> None:
    named = tmp_path / "some-name.gguf"
    named.symlink_to(shallow_path("Q8_0", layers=1))
    assert file_type_of(check_header(named)) == "Q8_0"
    header = check_header(shallow_path("F32", layers=1))
    assert file_type_of(header) == "F32"
    told = {**header.metadata, "emotion_lrm.file_type": "Q4_0_MIXED"}
    assert file_type_of(replace(header, metadata=told)) == "Q4_0_MIXED"


@pytest.mark.parametrize("flags", [[], ["--tune"]])
def test_types_are_refused_beside_a_model_that_has_one(flags: list[str], shallow_path: Callable[..., Path]) -> None:
    path = str(shallow_path("F32", layers=1))
    with pytest.raises(UsageError, match="one file type"):
        CliRunner().invoke(bench, ["--model", path, "--types", "bf16,q8_0", *flags], catch_exceptions=False)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--tune", "--threads", "2"], "--tune takes no --threads"),
        (["--tune", "--growth"], "--tune takes no --growth"),
        (["--tune", "--plot", "x.png", "--rounds", "3"], "--tune takes no --plot or --rounds"),
        (["--growth", "--texts", "8", "--no-server"], "--growth takes no --no-server or --texts"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(flags: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        CliRunner().invoke(bench, flags, catch_exceptions=False)


@pytest.mark.parametrize("flag", ["--gpu-layers", "--adapter", "--lens", "--taxonomy", "--mode"])
def test_options_of_other_commands_are_none_of_its_own(flag: str) -> None:
    done = CliRunner().invoke(bench, [flag, "1"])
    assert done.exit_code == 2
    assert "No such option" in done.output
    assert flag in done.output


def test_what_is_tried_goes_away_even_if_the_trial_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "emotion-smollm2-135m-bf16.gguf"
    kept.touch()

    def build(name: str, _: object) -> Path:
        (tmp_path / f"{name}.gguf").touch()
        return tmp_path / f"{name}.gguf"

    monkeypatch.setattr(store, "ensure", build)
    monkeypatch.setattr(store, "models_folder", lambda: tmp_path)
    monkeypatch.setattr(file_types, "try_file_types", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bench_command._tune_file_type("q8_0,f16", Settings())
    assert list(tmp_path.iterdir()) == [kept]


def test_a_child_that_fails_is_told_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(EmotionLRMError, match=r"ended with exit code \d: .*nothing\.gguf"):
        measure_startup(tmp_path / "nothing.gguf")


def test_the_start_is_measured_whatever_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, shallow_path: Callable[..., Path]
) -> None:
    monkeypatch.setenv("EMOTION_LRM_LENS", "both")
    assert measure_startup(shallow_path("F32", layers=1)).keys() == {"help", "one_text"}


def test_types_are_those_of_the_shipped_model_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(store, "ensure", lambda name, _: asked.append(name) or Path("made.gguf"))
    monkeypatch.setattr(bench_command, "_measure", lambda *_: None)
    name = list(store.load_shipped().models)[-1]
    for flags in (["--types", "bf16, q8_0"], []):
        CliRunner().invoke(bench, ["--model", name, *flags], catch_exceptions=False)
    assert asked == [f"{name}-bf16", f"{name}-q8_0", name]


@pytest.fixture
def engine(default_model_path: Path) -> Iterator[Engine]:
    loaded = Engine(default_model_path, threads=1)
    yield loaded
    loaded.close()


@pytest.mark.real
def test_growth_on_few_texts(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_growth(engine, bench_texts()[:3], sizes=(4, 8), explained=(2,), words=(900,))
    assert [(growth.of, growth.mode, growth.amount) for growth in found] == [
        ("texts", "fast", 4), ("texts", "fast", 8), ("texts", "explain", 2), ("words", "fast", 900),
    ]  # fmt: skip
    assert all(growth.per_second > 0 for growth in found)
    print_growth(found, sys.stdout)
    assert "the slowest below the fastest" in capsys.readouterr().out


@pytest.mark.real
def test_one_text_costs_little_more_than_its_forward_pass(engine: Engine) -> None:
    text = spread(bench_texts(), 1)[0]
    assert any(measure_single(engine, text)["ratio"] < 1.3 for _ in range(4))  # others may use the processor too


@pytest.mark.real
def test_one_text_on_the_command_line_takes_little_processor_time(default_model_path: Path) -> None:
    command = [sys.executable, "-m", "toolkit.cli", "--model", str(default_model_path), "--threads", "1"]

    def seconds() -> float:
        before = os.times()
        subprocess.run([*command, "I feel disappointed and ignored..."], check=True, capture_output=True)
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    assert any(seconds() < 2.5 for _ in range(3))


@pytest.mark.real
def test_the_keys_of_the_json_are_a_contract(default_model_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    flags = ["--rounds", "1", "--texts", "8", "--threads", "1", "--no-server", "--json", "--plot", str(picture)]
    done = CliRunner().invoke(bench, ["--model", str(default_model_path), *flags], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert {"machine", "model", "rows", "roof", "memory", "single", "startup", "file_types"} <= told.keys()
    assert {"cpu", "cores", "flags", "build", "kernel", "llama_cpp_python"} <= told["machine"].keys()
    assert told["model"] == default_model_path.stem
    assert (told["threads"], told["texts"]) == (1, 8)
    assert [(row["name"], row["mode"]) for row in told["rows"]] == [
        (name, mode) for mode in ("fast", "explain") for name in (ORDINARY, OURS)
    ]
    for row in told["rows"]:
        assert row.keys() == {"name", "mode", "texts", "texts_per_second", "ratio_to_ordinary", "ratio_to_server"}
        assert row["texts"] == (8 if row["name"] == OURS else 4)
        assert row["texts_per_second"] > 0
    assert told["roof"]["fast_tokens_per_second"] > 0
    assert told["roof"]["tokens_per_second"] > 0
    memory = told["memory"]
    assert memory["allowed"] == memory["file"] + memory["kv_cache"] + 250_000_000
    assert memory["peak"] is None or memory["peak"] <= memory["allowed"]
    assert picture.read_bytes().startswith(b"\x89PNG")
