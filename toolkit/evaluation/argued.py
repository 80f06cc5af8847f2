"""An independent judge of what a reasoning argues for: a word model that has seen neither the text nor the label.

It is fitted on the reasonings that were written by hand for the samples that ship, and on what ``prompts/teacher`` says
of every label in appraisal terms. Quotations are emptied first, so that it judges the argument and not the words of the
text. As nearly every reasoning names its label, a second judge of the same make reads without the labels' names.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.assets import asset
from toolkit.contract.lens import Lens
from toolkit.corpora.argument import argument
from toolkit.corpora.gate import outside_quotes
from toolkit.corpora.knowledge import load_appraisals

SAMPLES = ("tiny_debug_1k.jsonl", "situations_2k.jsonl")
_KEYS = {Lens.AUTHOR: ("emotion", "reasoning"), Lens.READER: ("reader_emotion", "reader_reasoning")}
HELD_OUT = 0.2
_SEED = 42
Reads = Callable[[str], str]


@dataclass(frozen=True)
class ArgumentJudge:
    """The fitted judge.

    Attributes:
        reads: what it makes of a reasoning before it reads it.
        accuracy: share of the reasonings that were held out whose label it finds, 0 to 1.
        chains: how many it was fitted on.
    """

    model: Any
    reads: Reads
    accuracy: float
    chains: int

    def labels(self, reasonings: Sequence[str]) -> NDArray[np.str_]:
        """The label that each reasoning argues for."""
        return np.asarray(self.model.predict([self.reads(words) for words in reasonings]))


@cache
def argument_judge(lens: Lens, named: bool = True) -> ArgumentJudge | None:
    """The judge of a lens's reasonings, with the names of labels in them or without; None without scikit-learn."""
    if not find_spec("sklearn"):
        return None
    return fit_judge(known_chains(lens), appraisals(lens), outside_quotes if named else partial(argument, lens=lens))


def fit_judge(
    chains: Sequence[tuple[str, str]], appraised: Sequence[tuple[str, str]] = (), reads: Reads = outside_quotes
) -> ArgumentJudge:
    """Fit a judge on pairs of (reasoning, label), and measure it on a fifth of them that it does not see.

    Args:
        appraised: further pairs of (part of a sentence, label) to fit it on.
        reads: what it makes of a reasoning before it reads it.
    """
    shuffled = random.Random(_SEED).sample(list(chains), len(chains))
    cut = round(HELD_OUT * len(shuffled))
    held, seen = shuffled[:cut], shuffled[cut:]
    learned = [*seen, *appraised]
    model = _word_model().fit([reads(words) for words, _ in learned], [label for _, label in learned])
    judge = ArgumentJudge(model, reads, 0.0, len(seen))
    right = judge.labels([words for words, _ in held]) == np.array([label for _, label in held])
    return replace(judge, accuracy=float(right.mean()))


def known_chains(lens: Lens) -> list[tuple[str, str]]:
    """Every reasoning of the samples that argues for a label through ``lens``, and the label."""
    label, reasoning = _KEYS[lens]
    return [(row[reasoning], row[label]) for row in _sample_rows() if row.get(reasoning)]


def appraisals(lens: Lens) -> list[tuple[str, str]]:
    """What the teacher's knowledge says of every label: its names, signals, stances and cases, and the label."""
    found = []
    for label, known in load_appraisals(lens).items():
        parts = [*known.names, *known.signals, *known.stances, *known.cases]
        parts += [part for cue in known.cues for part in (*cue.signals, *cue.stances)]
        found += [(part, label) for part in parts]
    return found


def _sample_rows() -> Iterable[dict[str, str]]:
    for name in SAMPLES:
        for line in asset("data", "samples", name).read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _word_model() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(random_state=_SEED))
