"""Is the reasoning true? Whether it argues for the label that was given, and whether the words it quotes carry it.

Faithfulness is measured by erasure (ERASER, DeYoung et al., ACL 2020) on the model's own posterior: without the quoted
words the label should lose probability (comprehensiveness), on the quoted words alone it should keep it (sufficiency).
Both are set against runs of words of the same lengths at random places of the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from toolkit.contract.answer import find_evidence, json_schema
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.spans import kept_words, quoted_words
from toolkit.evaluation.answers import parse_answer
from toolkit.evaluation.argued import ArgumentJudge, argument_judge
from toolkit.evaluation.metrics import Bools, Floats, mean_interval

MOST_ANSWERS = 500
LEAST_WORDS = 8
DRAWS = 4
_SEED = 42

Read = Callable[[Sequence[str]], Floats]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Erasure:
    """What erasing words does to the probability of the label that was given; means over texts, 95 % intervals.

    Attributes:
        texts: how many texts of at least eight words whose reasoning quotes some of them.
        comprehensiveness: probability with all words, less that without the quoted ones; higher is more faithful.
        random_comprehensiveness: the same for as many words at random places.
        comprehensiveness_gain: the first less the second, text by text.
        sufficiency: probability with all words, less that on the quoted ones alone; lower is more faithful.
        random_sufficiency: the same for as many words at random places.
        sufficiency_gain: the second less the first, text by text.
    """

    texts: int
    comprehensiveness: float
    random_comprehensiveness: float
    comprehensiveness_gain: Interval
    sufficiency: float
    random_sufficiency: float
    sufficiency_gain: Interval


@dataclass(frozen=True, slots=True)
class ReasoningQuality:
    """What was measured on the reasonings of the first rows.

    Attributes:
        answers: how many valid answers were looked at.
        argued: share of reasonings whose argument, with the quotations taken out, an independent judge reads as one
            for the label that was given; None without scikit-learn.
        argued_interval: its 95 % interval.
        judge_accuracy: how often that judge is right on reasonings it has not seen; ``argued`` can hardly exceed it.
        judge_chains: how many it was fitted on.
        argued_unnamed, argued_unnamed_interval, unnamed_judge_accuracy: the same of a judge that reads without the
            names of labels, and so the reasons alone.
        erasure: None where no reasoning quotes words of a text that is long enough.
    """

    answers: int
    argued: float | None
    argued_interval: Interval | None
    judge_accuracy: float | None
    judge_chains: int | None
    argued_unnamed: float | None
    argued_unnamed_interval: Interval | None
    unnamed_judge_accuracy: float | None
    erasure: Erasure | None


def measure_reasoning(
    read: Read, answers: Sequence[tuple[str, str]], lens: Lens, *, most: int = MOST_ANSWERS
) -> ReasoningQuality:
    """Measure the first ``most`` answers.

    Args:
        read: native posteriors of texts through ``lens``, shape (n, labels).
        answers: pairs of (raw JSON as the model wrote it, text).
        most: how many answers to look at, as each costs ten readings.
    """
    schema = json_schema(lens)
    found = [(parse_answer(raw, schema), text) for raw, text in answers[:most]]
    valid = [(answer, text) for answer, text in found if answer is not None]
    given = [answer["emotion"] for answer, _ in valid]
    reasonings = [answer["reasoning"] for answer, _ in valid]
    judge, unnamed = argument_judge(lens), argument_judge(lens, named=False)
    argued, argued_interval = _agreement(judge, reasonings, given)
    argued_unnamed, argued_unnamed_interval = _agreement(unnamed, reasonings, given)
    return ReasoningQuality(
        answers=len(valid),
        argued=argued,
        argued_interval=argued_interval,
        judge_accuracy=judge.accuracy if judge else None,
        judge_chains=judge.chains if judge else None,
        argued_unnamed=argued_unnamed,
        argued_unnamed_interval=argued_unnamed_interval,
        unnamed_judge_accuracy=unnamed.accuracy if unnamed else None,
        erasure=erase(read, [text for _, text in valid], reasonings, given, lens),
    )


def _agreement(
    judge: ArgumentJudge | None, reasonings: Sequence[str], given: Sequence[str]
) -> tuple[float | None, Interval | None]:
    """How often the judge finds the label that was given, and the interval."""
    if judge is None or not reasonings:
        return None, None
    agreed = (judge.labels(reasonings) == np.array(given)).astype(float)
    return float(agreed.mean()), mean_interval(agreed)


def erase(
    read: Read, texts: Sequence[str], reasonings: Sequence[str], given: Sequence[str], lens: Lens
) -> Erasure | None:
    """Erase the quoted words of every text, and as many others, and read what is left."""
    labels = load_taxonomy(lens.native).labels
    chance = np.random.default_rng(_SEED)
    variants: list[str] = []
    columns: list[int] = []
    for text, reasoning, label in zip(texts, reasonings, given, strict=True):
        quoted = quoted_words(text, find_evidence(text, reasoning))
        if len(quoted) < LEAST_WORDS or not quoted.any():
            continue
        masks = [quoted, *(moved(quoted, chance) for _ in range(DRAWS))]
        variants += [text, *(kept_words(text, ~mask) for mask in masks), *(kept_words(text, mask) for mask in masks)]
        columns.append(labels.index(label))
    if not columns:
        return None
    step = 1 + 2 * (1 + DRAWS)
    read_out = read(variants)[np.arange(len(variants)), np.repeat(columns, step)].reshape(len(columns), step)
    lost = read_out[:, :1] - read_out[:, 1:]  # without the words first, then on them alone
    without, alone = lost[:, : 1 + DRAWS], lost[:, 1 + DRAWS :]
    return _summed(without[:, 0], without[:, 1:].mean(1), alone[:, 0], alone[:, 1:].mean(1))


def _summed(without: Floats, random_without: Floats, alone: Floats, random_alone: Floats) -> Erasure:
    return Erasure(
        texts=len(without),
        comprehensiveness=float(without.mean()),
        random_comprehensiveness=float(random_without.mean()),
        comprehensiveness_gain=mean_interval(without - random_without),
        sufficiency=float(alone.mean()),
        random_sufficiency=float(random_alone.mean()),
        sufficiency_gain=mean_interval(random_alone - alone),
    )


def moved(mask: Bools, chance: np.random.Generator) -> Bools:
    """A mask with the same runs of words at random places, every arrangement of them as likely."""
    runs = [len(list(run)) for kept, run in groupby(mask.tolist()) if kept]
    blocks = [*([1] * length for length in runs), *([0] for _ in range(len(mask) - sum(runs)))]
    order = chance.permutation(len(blocks))
    return np.array([bit for place in order for bit in blocks[place]], dtype=bool)
