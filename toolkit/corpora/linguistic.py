"""Scores that hint at factual, low-affect, ambiguous or sarcastic texts; flags to look at, no verdicts.

Three of them rest on two witnesses: what the raters said (the soft target, else the labels), and what an interpretable
model of the labels reads in the text, a TF-IDF logistic regression of scikit-learn fitted on the other folds.
``low_affect`` is the share of neutral, the mean of both, halved for each sign of heat. ``factual`` is that share times
the square of the share of seven signs of a plain statement that hold. ``ambiguous`` is how far each witness is torn
between the Ekman families (the entropy as a share of the largest possible one), the geometric mean of both: a text is
ambiguous where raters part and the words themselves point in several ways. ``sarcastic`` looks at the surface alone and
adds the weights of the marks that irony bears. ``docs/cleaning.md`` says how often each flag is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import NEUTRAL, load_taxonomy
from toolkit.corpora.checks import Check
from toolkit.corpora.spans import words_of
from toolkit.corpora.yaml_assets import read_yaml

SCORES = ("factual", "low_affect", "ambiguous", "sarcastic")
# Heat in the writing, in the words, and in words in capitals.
_LOUD = re.compile(r"!|\?\?|\.\.|…|[\U0001f000-\U0001faff☀-➿]|[:;=][-']?[()DPp/]|<3|\^\^|\*\w|~")
_SHOUT = re.compile(r"\b[A-Z]{5,}\b")
# Adverbs of manner, and adjectives that mostly pass a verdict.
_VERDICT = re.compile(r"\w{2}(?:ly|less|ful|ous|iest|ish|able)$")
# A number, a unit, or a name in the middle of a sentence.
_DETAIL = re.compile(r"\d|(?<=[a-z,] )(?!I\b)[A-Z]\w+|\b(?:percent|dollars|years?|months|weeks|hours|miles|pounds)\b")
# Each mark of irony with the share it adds; the tag alone is sure.
_IRONY = tuple(
    (re.compile(mark, re.IGNORECASE), weight)
    for mark, weight in (
        (r"(?:^|\s)/s(?!\w)(?=\W*$)", 1.0),
        (r"^\W*(?:yeah|ya|ok|okay|sure|oh),? (?:right|sure jan)\b|\bsure,? jan\b", 0.7),
        (r"^\W*ah,? yes,? (?!i\b|thank|please|that makes)|^\W*oh,? (?:yes|sure),? (?:because|the|let)\b", 0.7),
        (r"\b(?:color|colour) me (?:shocked|surprised)|\b(?:shocker|surprise,? surprise|shocking,? i know)\b", 0.7),
        (r"\bwho (?:would|could|woulda|would've|would have) (?:ever )?(?:have )?(?:thought|thunk|guessed)\b", 0.7),
        (r"\bwhat could (?:possibly )?go wrong\b|\bsaid no ?(?:one|body) ever\b|\bcaptain obvious\b|\bsherlock\b", 0.7),
        (r"\b(?:because|cause|cuz) (?:that|that's|it) (?:always|totally|worked|went|makes sense)", 0.7),
        (r"\bhow dare (?:you|they|he|she|we|i|people|someone|anyone|anybody)\b", 0.7),
        (r"\bam ?i ?rite?\b|\bamirite\b|\bamiright\b", 0.7),
        (r"\boh,? (?:great|joy|goody|wonderful|lovely)[,.!]|\bgee,? (?:thanks|i wonder)|\bthanks,? obama\b", 0.7),
        (r"\b(?:yeah|sure|yes|because) (?:because|cause|cuz|obviously|clearly|of course) ", 0.4),
        (r"\bwhat a (?:shock|surprise)\b|\bhow (?:original|convenient|generous|brave|edgy)\b|\btruly a\b", 0.4),
        (r"🙄|[\"“]\w+[\"”]", 0.3),
        (r"\b(?:clearly|obviously|of course|totally)\b", 0.2),
    )
)
_MOCKING = re.compile(r"(?<![/#@\w])(?=[^\W\d_]*[a-z][A-Z][a-z][A-Z])[a-zA-Z]{4,}\b(?:\W+\w+)*")
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
    factual: float = Field(0.65, ge=0, le=1)
    low_affect: float = Field(0.84, ge=0, le=1)
    ambiguous: float = Field(0.68, ge=0, le=1)
    sarcastic: float = Field(0.6, ge=0, le=1)
    drop: tuple[Literal["factual", "low_affect", "ambiguous", "sarcastic"], ...] = ()


def check_texts(examples: Sequence[Example], reader: Reader, config: LinguisticConfig) -> list[Check]:
    """All scores of every text.

    Args:
        reader: gives the probability of each label, each from 0 to 1; it should not have been fitted on the text.
    """
    labels = list(reader.labels)
    read = reader.probabilities([e.text for e in examples])
    read = read / np.maximum(read.sum(axis=1, keepdims=True), 1e-12)
    said = np.array([[e.target().get(label, 0.0) for label in labels] for e in examples])
    neutral = (said + read)[:, labels.index(NEUTRAL)] / 2
    families = _families(labels)
    parted = np.sqrt(_entropy(said @ families) * _entropy(read @ families))
    rows = zip(examples, neutral.tolist(), parted.tolist(), strict=True)
    return [_check(example.text, plain_share, split, config) for example, plain_share, split in rows]


def calm(text: str) -> float:
    """1 for a text without heat, halved for each of its signs: loud writing, shouting, heated words or verdicts."""
    forms = {w.form for w in words_of(text)}
    words = bool(forms & (_flag_words()["heated"] | _flag_words()["verdicts"]))
    heat = (bool(_LOUD.search(text)), bool(_SHOUT.search(text)), words)
    return float(0.5 ** sum(heat))


def plain(text: str) -> float:
    """The share of seven signs of a plain statement that hold."""
    forms = [w.form for w in words_of(text)]
    known, lists = set(forms), _flag_words()
    opener = forms[0] if forms else ""
    signs = (
        not known & lists["persons"],
        calm(text) == 1.0,
        not known & lists["unplain"] and not any(_VERDICT.search(form) for form in forms),
        len(forms) > 4 and "?" not in text,
        opener in lists["openers"] or opener.startswith("[") or opener.isdigit(),
        bool(_DETAIL.search(text)),
        any(form in lists["verbs"] or (len(form) > 4 and form.endswith("ed")) for form in forms[1:]),
    )
    return sum(signs) / len(signs)


def sarcastic(text: str) -> float:
    """How many marks of irony a text bears, weighed and cut at 1."""
    text = text.replace("’", "'")
    marks = sum(weight for mark, weight in _IRONY if mark.search(text))
    return min(1.0, marks + (0.7 if _MOCKING.search(text) else 0.0))


def _check(text: str, neutral: float, parted: float, config: LinguisticConfig) -> Check:
    scores = {
        "factual": neutral * plain(text) ** 2,
        "low_affect": neutral * calm(text),
        "ambiguous": parted,
        "sarcastic": sarcastic(text),
    }
    return Check(scores, tuple(name for name in SCORES if scores[name] >= getattr(config, name)))


@cache
def _flag_words() -> dict[str, frozenset[str]]:
    raw: dict[str, str] = read_yaml("data", "configs", "flags.yaml")
    return {name: frozenset(words.split()) for name, words in raw.items()}


def _families(labels: Sequence[str]) -> Floats:
    """Which label belongs to which Ekman family, neutral being one: labels by families, 0 or 1."""
    author = load_taxonomy("goemotions")
    places = author.mapping("ekman")
    families = np.zeros((len(labels), len(load_taxonomy("ekman").labels)))
    for row, label in enumerate(labels):
        place = places[author.index(label)]
        if place is not None:
            families[row, place] = 1.0
    return families


def _entropy(rows: Floats) -> Floats:
    """The entropy of each row of shares, as a share of the largest possible one."""
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12)
    entropy: Floats = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1) / np.log(rows.shape[1])
    return np.clip(entropy, 0.0, 1.0)
