"""The bench command: honest arithmetic, the keys of its JSON, tunings that are found again, growth on few texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from convert.file_types import default_file_type
from convert.gguf_file import CONTENT_HASH
from toolkit.apps.bench import bench
from toolkit.apps.quality import Loss, labelled_rows
from toolkit.assets import asset
from toolkit.benchmark import file_types
from toolkit.benchmark.file_types import Tried, choose, try_file_types
from toolkit.benchmark.growth import Growth, long_text, measure_growth, widest_gap
from toolkit.benchmark.measure import OURS, Measured, Plan, bench_texts
from toolkit.benchmark.rivals import ORDINARY
from toolkit.benchmark.rounds import Contender, Row, rows_of, spread, take_turns
from toolkit.benchmark.show import draw_bench, print_growth
from toolkit.benchmark.tune import choices, search
from toolkit.errors import EmotionLRMError
from toolkit.inference import store
from toolkit.inference import tuning as kept_tunings
from toolkit.inference.engine import Engine
from toolkit.inference.tuning import (
    Tuning,
    busy_elsewhere,
    find_file_type,
    find_tuning,
    free_threads,
    keep_file_type,
    keep_tuning,
    processor,
)

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

    both = [Contender("a", "fast", lambda: work("a")), Contender("b", "fast", lambda: work("b"))]
    assert take_turns(both, 3, clock=lambda: now) == [10.0, 4.0]
    assert order == ["a", "b"] * 4


def test_a_ratio_is_to_the_ordinary_way_in_the_same_mode() -> None:
    names = [(ORDINARY, "fast"), (OURS, "fast"), (ORDINARY, "explain"), (OURS, "explain"), (OURS, "other")]
    contenders = [Contender(name, mode, lambda: 1) for name, mode in names]
    rows = rows_of(contenders, [5.0, 60.0, 2.0, 18.0, 7.0], ORDINARY)
    assert [row.ratio_to_ordinary for row in rows] == [1.0, 12.0, 1.0, 9.0, None]


def test_a_small_sample_is_as_long_as_the_whole() -> None:
    texts = bench_texts()
    assert len(texts) == 300
    few = spread(texts, 12)
    assert len(set(few)) == 12
    average = [sum(map(len, some)) / len(some) for some in (few, texts)]
    assert average[0] == pytest.approx(average[1], rel=0.05)
    assert sorted(spread(texts, 300)) == sorted(texts)
    assert Plan(texts=96).ordinary_texts == 12
    assert Plan(texts=8).ordinary_texts == 4


def test_a_tuning_is_found_again_on_the_same_machine_and_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Tuning(threads=2, single_threads=1, active=24)
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
    ["", "[]", "{", '{"KEY": {"tuning": {"active": 900}}}', '{"KEY": {"tuning": {"unheard": 1}}}', '{"KEY": 1}'],
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
    def tried(file_type: str, rate: float, lost: float) -> Tried:
        return Tried(file_type, rate, Loss(lost, 0.004, 0.01))

    found = [
        tried("BF16", 10.0, 0.0),
        tried("Q8_0", 10.2, 0.001),
        tried("F16", 11.0, -0.001),
        tried("Q4_0", 20.0, 0.02),
    ]
    assert [one.refused for one in found] == [False, False, False, True]
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
    assert found[0].loss == Loss(0.0, 0.0, 0.0)
    assert 0 < found[1].loss.kl < found[2].loss.kl
    assert all(one.texts_per_second > 0 for one in found)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0


def test_the_search_keeps_what_is_clearly_better() -> None:
    def score(tuning: Tuning, _: str) -> float:
        return 10.0 + (tuning.active == 24) + 0.1 * (tuning.active == 48) - 5 * (tuning.threads != 2)

    best, level = search(score, choices(2))
    assert best == Tuning(threads=2, single_threads=2, active=24)
    assert level == 11.0
    assert choices(1)["threads"] == [1]


def test_no_more_threads_than_others_leave_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tunings, "available_threads", lambda: 4)
    monkeypatch.setattr(kept_tunings.os, "cpu_count", lambda: 8)
    load = tmp_path / "loadavg"
    for running, free in ((1, 4), (5, 4), (7, 2), (8, 1), (30, 1)):
        load.write_text(f"0.10 0.20 0.30 {running}/400 1234\n")
        assert busy_elsewhere(load) == running - 1
        assert free_threads(load) == free
    assert free_threads(tmp_path / "missing") == 4


def test_the_processor_is_named_by_what_the_kernel_tells(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(
        "processor : 0\nmodel name : Some CPU\ncpu family : 6\nmodel : 143\nstepping : 8\n\nprocessor : 1\n"
    )
    assert processor(told) == "Some CPU (6/143/8)"
    assert processor(tmp_path / "missing")


def test_growth_is_told_by_the_slowest() -> None:
    found = [Growth("texts", 10, 50.0, None), Growth("texts", 100, 40.0, None), Growth("words", 9, 1.0, None)]
    assert widest_gap(found, "texts") == pytest.approx(0.2)
    assert widest_gap(found, "words") == 0
    assert long_text(["a b", "c"], 5) == "a b c a b"


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    rows = [Row(ORDINARY, "fast", 5.0, 1.0), Row(OURS, "fast", 60.0, 12.0), Row(OURS, "explain", 7.0, None)]
    roof = {"tokens_per_second": 2.0, "fast_tokens_per_second": 1.0, "share": 0.5}
    measured = Measured("m-bf16", "BF16", 2, rows, roof, {}, {})
    draw_bench([measured, replace(measured, file_type="Q8_0")], tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def engine(default_model_path: Path) -> Iterator[Engine]:
    loaded = Engine(default_model_path, threads=1)
    yield loaded
    loaded.close()


@pytest.mark.real
def test_growth_on_few_texts(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_growth(engine, bench_texts(), sizes=(4, 8), words=(900,))
    assert [(growth.of, growth.amount) for growth in found] == [("texts", 4), ("texts", 8), ("words", 900)]
    assert all(growth.per_second > 0 for growth in found)
    print_growth(found, sys.stdout)
    assert "the slowest below the fastest" in capsys.readouterr().out


@pytest.mark.real
def test_the_keys_of_the_json_are_a_contract(default_model_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    flags = ["--rounds", "1", "--texts", "8", "--threads", "1", "--no-server", "--json", "--plot", str(picture)]
    done = CliRunner().invoke(bench, ["--model", str(default_model_path), *flags], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert {"machine", "model", "rows", "roof", "memory", "single", "startup", "file_types"} <= told.keys()
    assert {"cpu", "cores", "flags", "build", "llama_cpp_python"} <= told["machine"].keys()
    assert told["model"] == default_model_path.stem
    assert [(row["name"], row["mode"]) for row in told["rows"]] == [
        (name, mode) for mode in ("fast", "explain") for name in (ORDINARY, OURS)
    ]
    for row in told["rows"]:
        assert row.keys() == {"name", "mode", "texts_per_second", "ratio_to_ordinary"}
        assert row["texts_per_second"] > 0
    assert told["roof"]["fast_tokens_per_second"] > 0
    assert told["roof"]["tokens_per_second"] > 0
    memory = told["memory"]
    assert memory["allowed"] == memory["file"] + memory["kv_cache"] + 250_000_000
    assert memory["peak"] is None or memory["peak"] <= memory["allowed"]
    assert picture.read_bytes().startswith(b"\x89PNG")
