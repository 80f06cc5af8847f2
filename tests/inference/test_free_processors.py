"""A model that was not told how many threads to take looks after a pause how many processors others leave free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import llama_cpp
import pytest

from toolkit import EmotionModel
from toolkit.inference import model as model_module
from toolkit.inference import tuning
from toolkit.inference.engine import Engine


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of two processors so many are kept busy by others, as the last of these numbers says."""
    numbers = [1]
    monkeypatch.setattr(tuning, "available_threads", lambda: 2)
    monkeypatch.setattr(tuning.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(tuning, "busy_elsewhere", lambda _: numbers[-1])
    return numbers


def threads(model: EmotionModel) -> set[int]:
    """What llama.cpp was told in both contexts, for batches and for single tokens."""
    assert isinstance(model.engine, Engine)
    pointers = (model.engine.context.pointer, model.engine.pen.pointer)
    return {told(one) for one in pointers for told in (llama_cpp.llama_n_threads, llama_cpp.llama_n_threads_batch)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, as the last of these numbers says."""
    numbers = [0.0]
    monkeypatch.setattr(model_module, "time", SimpleNamespace(monotonic=lambda: numbers[-1]))
    return numbers


def test_threads_follow_what_is_free(shallow_path: Callable[..., Path], busy: list[int], clock: list[float]) -> None:
    with EmotionModel.load(shallow_path("F32", layers=1)) as model:
        assert threads(model) == {1}
        busy.append(0)
        model.analyze("What a day!", mode="fast")
        assert threads(model) == {1}  # without a pause its own threads might be counted
        clock.append(10)
        model.analyze("What a day!", mode="fast")
        assert threads(model) == {2}
        busy.append(1)
        clock.append(20)
        slices = model.analyze_in_slices("It goes on. " * 600, mode="fast")
        next(slices)
        assert threads(model) == {1}
        busy.append(0)
        clock.append(30)
        next(slices)
        model.analyze("What a day!", mode="fast")
        assert threads(model) == {1}  # a long text was read until now


def test_threads_that_were_asked_for_stay(
    shallow_path: Callable[..., Path], busy: list[int], clock: list[float]
) -> None:
    with EmotionModel.load(shallow_path("F32", layers=1), threads=1) as model:
        busy.append(0)
        clock.append(10)
        model.analyze("What a day!", mode="fast")
        assert threads(model) == {1}
