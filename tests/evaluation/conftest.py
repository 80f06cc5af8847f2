"""A corpus of a few rows and a model whose posteriors are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation.metrics import Floats
from toolkit.inference.calibration import Calibration
from toolkit.inference.posterior import apply_temperature

LABELS = load_taxonomy("goemotions").labels

# Text, gold labels, and the probabilities that the model gives; the rest of the mass is spread evenly.
ROWS: list[tuple[str, str, dict[str, float]]] = [
    ("I am so happy", "joy", {"joy": 0.8, "excitement": 0.1}),
    ("  Thanks, I love it! ", "gratitude,love", {"love": 0.5, "gratitude": 0.4}),
    ("Leave me alone", "annoyance", {"anger": 0.6, "annoyance": 0.3}),
    ("", "neutral", {"neutral": 0.9}),
    ("I am so happy", "sadness", {"joy": 0.8, "excitement": 0.1}),
    ("What?", "confusion,surprise", {"surprise": 0.3, "confusion": 0.4, "neutral": 0.2}),
    ("My dog died", "sadness", {"sadness": 0.3, "grief": 0.6}),
    ("The bus is late", "neutral", {"neutral": 0.5, "annoyance": 0.4}),
    ("Well done, me", "pride", {"pride": 0.7, "admiration": 0.2}),
    ("It stinks", "disgust", {"disgust": 0.85}),
]


def spread(given: dict[str, float]) -> Floats:
    """A posterior over the 28 labels, with the mass that is left spread over the labels that are not named."""
    rest = (1 - sum(given.values())) / (len(LABELS) - len(given))
    return np.array([given.get(label, rest) for label in LABELS])


class StandIn:
    """The interface of the model; posteriors by hand, answers that quote the first word."""

    name = "stand-in"
    lenses: tuple[Lens, ...] = (Lens.AUTHOR,)

    def __init__(self, calibration: Calibration | None = None) -> None:
        self.calibration = calibration or Calibration()
        self.known = {text: spread(given) for text, _, given in ROWS}
        self.asked: list[str] = []

    def posteriors(self, texts: Sequence[str], *, lens: Lens) -> tuple[Floats, Floats]:
        self.asked += texts
        raw = np.stack([self.known.get(text, spread({})) for text in texts])  # even, where words were erased
        return apply_temperature(raw, self.calibration.of(lens).temperature), np.full(len(texts), 0.97)

    def answers(self, texts: Iterable[str], *, lens: Lens) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        for text in texts:
            quoted = f" They say “{text.split()[0]}”." if text.strip() else ""
            yield render_answer(LABELS[int(self.known[text].argmax())], f"It shows.{quoted}"), text


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """A corpora folder with the rows above as dev and test."""
    folder = tmp_path / "corpora" / "goemotions"
    folder.mkdir(parents=True)
    lines = [
        "\t".join((text, ",".join(str(LABELS.index(label)) for label in gold.split(",")), f"id{number}"))
        for number, (text, gold, _) in enumerate(ROWS)
    ]
    for split in ("dev", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


@pytest.fixture
def stand_in() -> Callable[..., StandIn]:
    """Makes a stand-in with a calibration."""
    return StandIn
