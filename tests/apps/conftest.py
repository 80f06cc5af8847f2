"""An analysis to show, and a model that answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens, check_pair
from toolkit.contract.taxonomy import load_taxonomy

TEXT = "I feel disappointed and ignored..."


@pytest.fixture
def reading() -> Callable[..., Analysis]:
    """Makes an analysis of a disappointed text, with changes."""
    scores = dict.fromkeys(load_taxonomy("goemotions").labels, 0.0)
    scores |= {
        "disappointment": 0.62,
        "sadness": 0.22,
        "annoyance": 0.07,
        "anger": 0.05,
        "neutral": 0.03,
        "grief": 0.01,
    }
    made = Analysis(
        text=TEXT,
        lens=Lens.AUTHOR,
        taxonomy="goemotions",
        mode="explain",
        emotion="disappointment",
        fine_emotion="disappointment",
        confidence=0.62,
        abstained=False,
        emotions=("disappointment", "sadness"),
        scores=scores,
        coverage=0.99,
        outside=0.0,
        reasoning="The author calls themselves “disappointed” and “ignored”: a hope they had in others was let down.",
        evidence=("disappointed", "ignored"),
        model="emotion-smollm2-135m-q8_0",
    )
    return lambda **changes: dataclasses.replace(made, **changes)


class StandIn:
    """The interface of the model; every text gets the same reading."""

    name = "stand-in"
    noise_line = 0.1

    def __init__(self, reading: Callable[..., Analysis]) -> None:
        self._reading = reading
        self.seen: list[str] = []

    def analyze_many(self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str) -> Iterator[Analysis]:
        check_pair(lens, taxonomy or lens.native)
        for text in texts:
            self.seen.append(text)
            evidence = tuple(word for word in ("disappointed", "ignored") if word in text)
            reasoning = None if mode == "fast" else "The author says so."
            seen = through_the_reader() if lens is Lens.READER else {}
            yield self._reading(text=text, evidence=evidence, reasoning=reasoning, mode=mode, model=self.name, **seen)


def through_the_reader() -> dict[str, Any]:
    """What differs in a reading through the reader's lens."""
    scores = dict.fromkeys(load_taxonomy("empathetic").labels, 0.0) | {"sad": 0.7, "lonely": 0.3}
    named = {"emotion": "sad", "fine_emotion": "sad", "confidence": 0.7, "emotions": ("sad",)}
    return {"lens": Lens.READER, "taxonomy": "empathetic", "scores": scores, **named}


@pytest.fixture
def model(reading: Callable[..., Analysis], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in the place of whatever model the settings name."""
    made = StandIn(reading)

    @contextmanager
    def opened(*_: Any) -> Iterator[StandIn]:
        yield made

    monkeypatch.setattr("toolkit.apps.analyze.open_model", opened)
    return made


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests gets in."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "EMOTION_LRM_MODEL", "EMOTION_LRM_LENS", "EMOTION_LRM_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("EMOTION_LRM_TAXONOMY", "EMOTION_LRM_THREADS", "EMOTION_LRM_GPU_LAYERS", "EMOTION_LRM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
