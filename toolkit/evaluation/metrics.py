"""Metrics over posteriors and gold label sets: pure arithmetic on n rows and k labels; a row may have several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Precision, recall, F1 (0 to 1) and support (gold rows) per label, each of shape (k,); and the micro-F1."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: NDArray[np.int64]
    micro_f1: float

    def macro(self, known: Bools | None = None) -> float:
        """The plain mean of F1 over all labels, also over those without a gold row.

        Args:
            known: where these are scores of a resample, which labels have a gold row in the whole, shape (k,). One that
                was not drawn is left out, as nothing is known of it; those that the whole lacks count as 0 as ever.
        """
        if known is None:
            return float(self.f1.mean())
        drawn = self.support > 0
        return float(self.f1[drawn].mean() * known.mean()) if drawn.any() else 0.0

    def weighted(self, values: Floats) -> float:
        """The mean of ``values`` over labels, weighted by support; 0 where no label has any."""
        total = self.support.sum()
        return float((values * self.support).sum() / total) if total else 0.0


def score_labels(predicted: Bools, gold: Bools) -> LabelScores:
    """Score predictions of shape (n, k) against gold of shape (n, k); 0/0 counts as 0."""
    hits = (predicted & gold).sum(0)
    called, support = predicted.sum(0), gold.sum(0)
    micro = _ratio(2 * hits.sum(keepdims=True), called.sum(keepdims=True) + support.sum(keepdims=True))
    return LabelScores(
        precision=_ratio(hits, called),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, called + support),
        support=support.astype(np.int64),
        micro_f1=float(micro[0]),
    )


def top_correct(posterior: Floats, gold: Bools, k: int = 1) -> Bools:
    """For each row whether one of its ``k`` most probable labels is among the gold labels; shape (n,)."""
    ranked = np.argsort(-posterior, 1, kind="stable")[:, :k]
    return np.asarray(np.take_along_axis(gold, ranked, 1).any(1))


def one_hot_argmax(posterior: Floats) -> Bools:
    """The most probable label of each row as a prediction of shape (n, k)."""
    predicted = np.zeros(posterior.shape, dtype=bool)
    predicted[np.arange(len(posterior)), posterior.argmax(1)] = True
    return predicted


def calibration_error(confidence: Floats, correct: Bools, bins: int = 15) -> float:
    """Expected calibration error with equal-mass bins (Nguyen and O'Connor, 2015).

    Rows are sorted by confidence and cut into ``bins`` parts of equal size (to one row); the result is the mean over
    rows of |mean confidence - share correct| in their part, 0 to 1. NaN for no rows.
    """
    if not len(confidence):
        return float("nan")
    parts = equal_mass_bins(confidence, bins)
    gaps = [len(part) * abs(float(confidence[part].mean() - correct[part].mean())) for part in parts]
    return sum(gaps) / len(confidence)


def equal_mass_bins(confidence: Floats, bins: int) -> list[NDArray[np.intp]]:
    """The rows of each bin, the least sure first; equal in size to one row, and none of them empty."""
    order = np.argsort(confidence, kind="stable")
    return [part for part in np.array_split(order, bins) if len(part)]


def gold_loss(posterior: Floats, gold: Bools) -> float:
    """Mean negative log of the probability mass on the gold labels, in nats; mass is bounded below by 1e-12."""
    return float(gold_losses(posterior, gold).mean())


def gold_losses(posterior: Floats, gold: Bools) -> Floats:
    """:func:`gold_loss` row by row, shape (n,)."""
    mass = (posterior * gold).sum(1)
    return np.asarray(-np.log(np.clip(mass, 1e-12, 1.0)))


def bootstrap_intervals(
    statistics: Callable[[NDArray[np.intp]], Mapping[str, float]],
    n: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
    centres: Mapping[str, float] = {},
) -> dict[str, tuple[float, float]]:
    """The percentile bootstrap intervals of some statistics of the same resamples (Efron, 1979).

    Args:
        statistics: a function of row indices, which come with repeats; its values by their names.
        n: how many rows there are.
        resamples: how many times n rows are drawn with replacement.
        level: the share of resampled values inside.
        seed: of the random generator.
        centres: values of the whole for statistics that a resample inflates; what it adds on average is taken away.
    """
    random = np.random.default_rng(seed)
    found = [statistics(random.integers(0, n, n)) for _ in range(resamples)]
    intervals = {}
    for name in found[0]:
        values = np.array([one[name] for one in found])
        if name in centres:
            values += centres[name] - values.mean()
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = (float(low), float(high))
    return intervals


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 42,
) -> tuple[float, float]:
    """:func:`bootstrap_intervals` of one statistic."""
    return bootstrap_intervals(lambda rows: {"": statistic(rows)}, n, resamples=resamples, level=level, seed=seed)[""]


def mean_interval(values: Floats) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of values of shape (n,)."""
    return bootstrap_interval(lambda rows: float(values[rows].mean()), len(values))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
