"""What a model file is worth on labelled texts, and what it has lost against another file of the same model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.assets import asset
from toolkit.corpora.goemotions import find_split, resolve_source
from toolkit.evaluation import metrics
from toolkit.evaluation.evaluate import predict, read
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import Rows, load_rows
from toolkit.inference.model import EmotionModel

Progress = Callable[[int, int, str], None]

MAX_LOSS = 0.005
"""How much of the reference's top-1 accuracy a file may lose and still stand for it."""

# Not tiny_debug_1k.jsonl, which the shipped adapters are trained on.
_SAMPLES = ("golden.jsonl", "bench_300.jsonl")


@dataclass(frozen=True, slots=True)
class Quality:
    """A file's answers to n labelled texts.

    Attributes:
        posterior: calibrated, shape (n, native labels).
        correct: whether the most probable label is among the gold labels, shape (n,).
        macro_f1: over all labels, 0 to 1.
    """

    posterior: Floats
    correct: Bools
    macro_f1: float

    @property
    def accuracy(self) -> float:
        """Share of texts whose most probable label is right."""
        return float(self.correct.mean())


@dataclass(frozen=True, slots=True)
class Loss:
    """What a file has lost against a reference on the same texts.

    Attributes:
        top1: accuracy of the reference less its own; below zero where it happens to be better.
        noise: standard error of ``top1`` over the choice of texts.
        kl: mean Kullback-Leibler divergence of its label posteriors from the reference's, in nats.
    """

    top1: float
    noise: float
    kl: float


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
    return Quality(reading.posterior, correct, metrics.score_labels(predicted, rows.gold).macro())


def loss_against(reference: Quality, other: Quality) -> Loss:
    """Compare two files' answers to the same rows."""
    lost = reference.correct.astype(float) - other.correct.astype(float)
    p, q = (np.maximum(quality.posterior, 1e-12) for quality in (reference, other))
    divergence = (p * (np.log(p) - np.log(q))).sum(1)
    return Loss(float(lost.mean()), float(lost.std() / np.sqrt(len(lost))), float(divergence.mean()))
