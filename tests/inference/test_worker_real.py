"""The worker process on the default model: the same readings as in process, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convert.errors import GGUFError
from toolkit import Analysis, EmotionModel
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference.engine import Explained, Reading
from toolkit.inference.worker import WorkerModel

pytestmark = pytest.mark.real
TEXTS = [
    "Thank you so much, you saved my day!",
    "I feel disappointed and ignored...",
    "What on earth was that?",
    "It is what it is.",
    "My hands are shaking and I cannot breathe.",
    "I love you more than words can say.",
]


@pytest.fixture(scope="module")
def worker(default_model_path: Path) -> Iterator[WorkerModel]:
    with WorkerModel.load(default_model_path, threads=1) as model:
        yield model


def halting(texts: list[str], seen: list[object], pauses: int = 0) -> Iterator[str | None]:
    """Each text, and then the end, only when all before it are answered, or after some pauses; None in between."""
    for count, text in enumerate([*texts, None]):
        waited = 0
        while len(seen) < count and not (pauses and waited >= pauses):
            waited += 1
            assert waited < 500, "the engine waits for a text that never comes"
            yield None
        if text is not None:
            yield text


@pytest.mark.parametrize("pauses", [0, 7])
def test_the_engine_goes_on_while_its_source_has_nothing(default_model: EmotionModel, pauses: int) -> None:
    engine = default_model.engine
    long = "I waited for the bus in the rain. " * 100  # several windows
    texts = [TEXTS[0], long, TEXTS[1]]
    expected = list(engine.read(texts, Lens.AUTHOR))
    read: list[Reading] = []
    for reading in engine.read(halting(texts, read, pauses), Lens.AUTHOR):
        read.append(reading)
    explained: list[Explained] = []
    for found in engine.explain(halting(texts, explained, pauses), Lens.AUTHOR, lambda p: int(p.argmax())):
        explained.append(found)
    for want, fast, slow in zip(expected, read, explained, strict=True):
        assert fast.posterior == pytest.approx(want.posterior, abs=0.01)
        assert slow.reading.posterior == pytest.approx(want.posterior, abs=0.01)
        assert slow.label == int(want.posterior.argmax())


@pytest.mark.parametrize("mode", ["fast", "explain"])
def test_the_model_goes_on_while_its_source_has_nothing(default_model: EmotionModel, mode: str) -> None:
    found: list[Analysis] = []
    for reading in default_model.analyze_many(halting(TEXTS[:3], found), mode=mode, pauses=True):
        found.append(reading)
    assert [reading.text for reading in found] == TEXTS[:3]


def test_readings_are_those_of_the_model_in_process(default_model: EmotionModel, worker: WorkerModel) -> None:
    assert (worker.name, worker.lenses) == (default_model.name, default_model.lenses)
    for mode, taxonomy in (("fast", "goemotions"), ("explain", "ekman")):
        here = list(default_model.analyze_many(TEXTS, mode=mode, taxonomy=taxonomy))
        there = list(worker.analyze_many(TEXTS, mode=mode, taxonomy=taxonomy))
        with ThreadPoolExecutor(len(TEXTS)) as callers:
            apart = list(callers.map(lambda t: worker.analyze(t, mode=mode, taxonomy=taxonomy), TEXTS))  # noqa: B023
        for one in (there, apart):
            assert [r.text for r in one] == TEXTS
            assert [r.emotion for r in one] == [r.emotion for r in here]
            assert [r.confidence for r in one] == pytest.approx([r.confidence for r in here], abs=0.02)
            assert all(set(r.to_dict()) == set(h.to_dict()) for r, h in zip(one, here, strict=True))
            assert all((r.reasoning is None) == (mode == "fast") for r in one)


@pytest.mark.parametrize("mode", ["fast", "explain"])
def test_a_very_long_text_keeps_nobody_waiting(shallow_path: Callable[..., Path], mode: str) -> None:
    path, long = shallow_path("F32"), "I waited in the rain and nobody came. " * 2_500  # 20,000 words
    with WorkerModel.load(path, threads=1) as model:
        reading = model.submit(long, mode=mode, caller="long")
        for text in TEXTS:
            assert model.analyze(text, mode=mode).text == text
        assert not reading.done()
        found = reading.result(600)
    with EmotionModel.load(path, threads=1) as model:
        expected = model.analyze(long, mode=mode)
    assert found.scores == pytest.approx(expected.scores, abs=1e-6)
    assert (found.emotion, found.reasoning) == (expected.emotion, expected.reasoning)


def test_a_worker_killed_in_mid_reasoning_loses_nothing(worker: WorkerModel) -> None:
    texts = TEXTS * 4
    pid = worker.pids[0]
    futures = [worker.submit(text) for text in texts]
    futures[0].result(300)
    os.kill(pid, signal.SIGKILL)
    readings = [future.result(300) for future in futures]
    assert [r.text for r in readings] == texts
    assert all(r.reasoning for r in readings)
    assert worker.pids[0] != pid


def test_a_missing_model_fails_as_in_process(tmp_path: Path) -> None:
    for name in (str(tmp_path / "missing.gguf"), "no-such-model"):
        with pytest.raises(ModelError) as here:
            EmotionModel.load(name)
        with pytest.raises(ModelError) as there:
            WorkerModel.load(name)
        assert (str(there.value), there.value.hint) == (str(here.value), here.value.hint)


def test_a_damaged_model_fails_as_in_process(default_model_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(default_model_path.read_bytes()[:100_000])
    with pytest.raises(GGUFError) as here:
        EmotionModel.load(damaged)
    with pytest.raises(GGUFError) as there:
        WorkerModel.load(damaged)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))


def test_a_relative_path_means_the_same_after_a_restart(
    default_model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(default_model_path.parent)
    with WorkerModel.load(f".{os.sep}{default_model_path.name}", threads=1) as model:
        monkeypatch.chdir(tmp_path)
        os.kill(model.pids[0], signal.SIGKILL)
        began = time.monotonic()
        assert model.analyze(TEXTS[0], mode="fast").text == TEXTS[0]
        assert time.monotonic() - began < 300
