"""Scores that hint at factual, low-affect, ambiguous or sarcastic texts; flags to look at, no verdicts.

Two scores come from what the texts say of each other: an interpretable model of the labels, fitted on the other
folds, reads each text. ``low_affect`` is the probability it leaves to neutral, and ``ambiguous`` the entropy of its
probabilities over the emotions as a share of the largest possible one. The other two look at the surface.
``factual`` is the share of four signs that hold: no first or second person, no exclamation and no emoji, no word of
evaluation or emphasis, and a number, date or sum. ``sarcastic`` adds the weights of marks that irony often bears.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.corpora.clean import CleaningReport
from toolkit.corpora.filters import Finding
from toolkit.corpora.spans import word_lists, words_of

SCORES = ("factual", "low_affect", "ambiguous", "sarcastic")
_NUMBER = re.compile(r"\d")
_LOUD = re.compile(r"!|[\U0001f000-\U0001faff☀-➿]|[:;=][-']?[()DPp]|<3|\b(?:lol|lmao|haha\w*|wow|omg|ugh)\b", re.I)
# Each mark with the share it adds; the tag alone is sure.
_IRONY = (
    (re.compile(r"(?:^|\s)/s\b"), 1.0),
    (
        re.compile(r"\b(?:yeah,? right|oh (?:great|joy|wonderful|lovely)|thanks,? obama|sure,? jan|how dare)\b", re.I),
        0.6,
    ),
    (re.compile(r"\b(?:because|cause) (?:that|that's|it) (?:always|totally|worked|went|makes sense)", re.I), 0.6),
    (re.compile(r"\b(?:so|very|totally|clearly|obviously) \w+\s*\.\.\.|\bwhat a (?:shock|surprise)\b", re.I), 0.4),
    (re.compile(r"🙄|[\"“]\w+[\"”]"), 0.3),
    (re.compile(r"\b(?:clearly|obviously|of course)\b", re.I), 0.2),
)
Floats = NDArray[np.float64]


class Reader(Protocol):
    """What reads a text without having been fitted on it."""

    @property
    def labels(self) -> Sequence[str]: ...

    def probabilities(self, texts: Sequence[str]) -> Floats: ...


class LinguisticConfig(Config):
    """From which score on a text is flagged, and which flags drop it; as it stands, none does.

    Attributes:
        check: score the texts at all; needs scikit-learn.
        folds: each text is read by a model fitted on the other folds.
        factual, low_affect, ambiguous, sarcastic: the least score that is flagged, 0 to 1.
        drop: the names of flags that drop a text.
    """

    check: bool = True
    folds: int = Field(3, ge=2)
    factual: float = Field(1.0, ge=0, le=1)
    low_affect: float = Field(0.8, ge=0, le=1)
    ambiguous: float = Field(0.85, ge=0, le=1)
    sarcastic: float = Field(0.6, ge=0, le=1)
    drop: tuple[Literal["factual", "low_affect", "ambiguous", "sarcastic"], ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """The scores of one text, each from 0 to 1, and the names of those that are flagged."""

    scores: Mapping[str, float]
    flags: tuple[str, ...]

    def to_row(self, example: Example) -> dict[str, Any]:
        """The JSON object of one text."""
        scores = {name: round(score, 4) for name, score in self.scores.items()}
        return {"id": example.id, "scores": scores, "flags": list(self.flags)}


def check_texts(examples: Sequence[Example], reader: Reader, config: LinguisticConfig) -> list[Check]:
    """All scores of every text.

    Args:
        reader: gives the probability of each label, each from 0 to 1; it should not have been fitted on the text.
    """
    rows = reader.probabilities([e.text for e in examples])
    plain = list(reader.labels).index("neutral")
    return [_check(e.text, row, plain, config) for e, row in zip(examples, rows, strict=True)]


def factual(text: str) -> float:
    """The share of the four signs of a factual text that hold."""
    forms = {w.form for w in words_of(text)}
    lists = word_lists()
    signs = (
        not forms & lists.persons,
        not _LOUD.search(text),
        not forms & (lists.evaluative | lists.intensifiers),
        bool(_NUMBER.search(text)),
    )
    return sum(signs) / len(signs)


def sarcastic(text: str) -> float:
    """How many marks of irony a text bears, weighed and cut at 1."""
    text = text.replace("’", "'")
    return min(1.0, sum(weight for mark, weight in _IRONY if mark.search(text)))


def drop_flagged(
    examples: Sequence[Example], checks: Sequence[Check], report: CleaningReport, config: LinguisticConfig
) -> list[Example]:
    """The examples without those that bear a flag in ``config.drop``; the report counts them."""
    kept = []
    for example, check in zip(examples, checks, strict=True):
        hit = next((flag for flag in config.drop if flag in check.flags), None)
        if hit is None:
            kept.append(example)
        else:
            report.take_back(example, Finding(f"flagged as {hit}"))
    return kept


def _check(text: str, row: Floats, plain: int, config: LinguisticConfig) -> Check:
    scores = {
        "factual": factual(text),
        "low_affect": float(row[plain] / row.sum()),
        "ambiguous": _entropy(np.delete(row, plain)),
        "sarcastic": sarcastic(text),
    }
    return Check(scores, tuple(name for name in SCORES if scores[name] >= getattr(config, name)))


def _entropy(row: Floats) -> float:
    shares = row / row.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum() / np.log(len(row)))
