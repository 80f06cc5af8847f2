"""What a model file is worth on labelled texts, and what it has lost against another file of the same model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.assets import asset
from toolkit.corpora.goemotions import find_split, resolve_source
from toolkit.evaluation import metrics
from toolkit.evaluation.evaluate import predict, read
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import Rows, load_rows
from toolkit.inference.model import EmotionModel

Progress = Callable[[int, int, str], None]

RESAMPLES = 200
CLEARLY = 1.645  # standard errors: what loses nothing is farther off by chance once in twenty times

# Not tiny_debug_1k.jsonl, which the shipped adapters are trained on.
_SAMPLES = ("golden.jsonl", "bench_300.jsonl")


@dataclass(frozen=True, slots=True)
class Quality:
    """A file's answers to n labelled texts.

    Attributes:
        posterior: calibrated, shape (n, native labels).
        correct: whether the most probable label is among the gold labels, shape (n,).
        predicted: what F1 is of, shape (n, labels).
        gold: of the same shape.
    """

    posterior: Floats
    correct: Bools
    predicted: Bools
    gold: Bools

    @property
    def accuracy(self) -> float:
        """Share of texts whose most probable label is right."""
        return float(self.correct.mean())

    @property
    def macro_f1(self) -> float:
        """Over all labels, 0 to 1."""
        return metrics.score_labels(self.predicted, self.gold).macro()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the reference's top-1 accuracy and macro-F1 a file may lose and still stand for it."""

    top1: float = 0.005
    macro_f1: float = 0.003


@dataclass(frozen=True, slots=True)
class Loss:
    """What a file has lost against a reference on the same texts.

    Attributes:
        top1: accuracy of the reference less its own; below zero where it happens to be better.
        noise: standard error of ``top1`` over the choice of texts.
        kl: mean Kullback-Leibler divergence of its label posteriors from the reference's, in nats.
        macro_f1: macro-F1 of the reference less its own.
        macro_f1_noise: standard error of ``macro_f1``, bootstrapped over the texts that both have read.
    """

    top1: float
    noise: float
    kl: float
    macro_f1: float
    macro_f1_noise: float

    def within(self, bounds: Bounds) -> bool:
        """Whether it has lost no more than it may.

        Rare labels make macro-F1 uncertain: even on all of GoEmotions dev its standard error is about the bound. So
        more than the bound counts only where it is also more than chance explains in a file that has lost nothing.
        """
        clearly = self.macro_f1 > max(bounds.macro_f1, CLEARLY * self.macro_f1_noise)
        return self.top1 <= bounds.top1 and not clearly


def labelled_rows(source: Path | None = None, limit: int | None = None) -> tuple[Rows, str]:
    """Labelled texts and what they are: GoEmotions' dev split where the corpora are, else the samples that ship.

    Args:
        source: the folder with the corpora, ``EMOTION_LRM_CORPORA`` by default.
        limit: the first so many rows only.

    Raises:
        DataError: for a ``source`` without the split, or a damaged file.
    """
    folder = resolve_source(source)
    if source is not None or (folder is not None and find_split(folder, "dev")):
        rows = load_rows("goemotions", "dev", source=folder, limit=limit)
        return rows, f"{len(rows.texts):,} comments of the GoEmotions dev split"
    first, second = (load_rows(str(asset("data", "samples", name))) for name in _SAMPLES)
    texts, gold = (first.texts + second.texts)[:limit], np.concatenate([first.gold, second.gold])[:limit]
    return dataclasses.replace(first, texts=texts, gold=gold), f"{len(texts)} of the samples that ship"


def judge_file(path: Path, rows: Rows, threads: int | None = None, progress: Progress | None = None) -> Quality:
    """Let a GGUF read the rows.

    Raises:
        ModelError, ConvertError: for a file that is damaged or is no model of this project.
    """
    with EmotionModel.load(path, threads=threads) as model:
        reading = read(model, rows, progress)
        scores, predicted, _ = predict(reading.posterior, rows, model.calibration)
    correct = metrics.top_correct(scores, rows.gold)
    return Quality(reading.posterior, correct, predicted, rows.gold)


def loss_against(reference: Quality, other: Quality) -> Loss:
    """Compare two files' answers to the same rows."""
    lost = reference.correct.astype(float) - other.correct.astype(float)
    p, q = (np.maximum(quality.posterior, 1e-12) for quality in (reference, other))
    divergence = (p * (np.log(p) - np.log(q))).sum(1)
    known: Bools = np.asarray(reference.gold.any(0))
    random = np.random.default_rng(0)

    def macro_f1(quality: Quality, picked: NDArray[np.intp]) -> float:
        return metrics.score_labels(quality.predicted[picked], quality.gold[picked]).macro(known)

    draws = [random.integers(0, len(lost), len(lost)) for _ in range(RESAMPLES)]
    return Loss(
        top1=float(lost.mean()),
        noise=float(lost.std() / np.sqrt(len(lost))),
        kl=float(divergence.mean()),
        macro_f1=reference.macro_f1 - other.macro_f1,
        macro_f1_noise=float(np.std([macro_f1(reference, picked) - macro_f1(other, picked) for picked in draws])),
    )
