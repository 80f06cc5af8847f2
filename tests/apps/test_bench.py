"""The bench command: honest arithmetic, the keys of its JSON, tunings that are found again, growth on few texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from convert.gguf_file import CONTENT_HASH
from toolkit.apps.bench import bench
from toolkit.benchmark.growth import Growth, long_text, measure_growth, widest_gap
from toolkit.benchmark.measure import OURS, Measured, Plan, bench_texts
from toolkit.benchmark.rivals import ORDINARY
from toolkit.benchmark.rounds import Contender, Row, rows_of, spread, take_turns
from toolkit.benchmark.show import draw_bench, print_growth
from toolkit.benchmark.tune import choices, search
from toolkit.inference import tuning as kept_tunings
from toolkit.inference.engine import Engine
from toolkit.inference.tuning import Tuning, busy_elsewhere, find_tuning, free_threads, keep_tuning, processor

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
    tuning = Tuning(threads=2, single_threads=1, batch=1024, active=24)
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


def test_the_search_keeps_what_is_clearly_better() -> None:
    def score(tuning: Tuning, _: str) -> float:
        return 10.0 + (tuning.active == 24) + 0.1 * (tuning.batch == 1024) - 5 * (tuning.threads != 2)

    best, level = search(score, choices(2))
    assert best == Tuning(threads=2, single_threads=2, active=24, batch=512)
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
