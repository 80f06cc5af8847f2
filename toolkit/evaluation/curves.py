"""What a report draws, as arithmetic: confusion, reliability, risk against coverage, and the surest mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.metrics import Bools, Floats, bootstrap_interval, equal_mass_bins

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal mass, the least sure first: mean confidence, share correct and rows of each; all of shape (b,)."""

    confidence: Floats
    correct: Floats
    rows: Ints


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What happens where only the surest rows are answered (El-Yaniv and Wiener, 2010).

    Attributes:
        coverage: share of rows answered, ascending to 1, one entry for each different confidence.
        risk: share of the answered rows that are wrong, of the same shape.
        area: the mean of the risk over rows, each at the coverage that its own confidence gives; lower is better.
    """

    coverage: Floats
    risk: Floats
    area: float


def reliability(confidence: Floats, correct: Bools, bins: int = 15) -> Reliability:
    """The bins of :func:`~toolkit.evaluation.metrics.calibration_error`."""
    parts = equal_mass_bins(confidence, bins)
    return Reliability(
        np.array([confidence[part].mean() for part in parts]),
        np.array([correct[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """The curve of n rows; rows of equal confidence are answered together."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.append(np.flatnonzero(ranked[:-1] != ranked[1:]), len(ranked) - 1)
    answered = last + 1
    risk = np.cumsum(~correct[order])[last] / answered
    return RiskCoverage(answered / len(ranked), risk, float((np.diff(answered, prepend=0) * risk).sum() / len(ranked)))


def risk_of(answered: Bools, correct: Bools) -> tuple[float, float | None]:
    """Coverage and risk where these rows are answered; no risk where none is."""
    return float(answered.mean()), float(1 - correct[answered].mean()) if answered.any() else None


def confusion(scores: Floats, gold: Bools) -> Ints:
    """How often which label was the most probable one for which gold label, over the rows with exactly one.

    Returns:
        Counts of shape (gold label, most probable label).
    """
    alone = gold.sum(1) == 1
    counts = np.zeros((gold.shape[1], gold.shape[1]), dtype=np.int64)
    np.add.at(counts, (gold[alone].argmax(1), scores[alone].argmax(1)), 1)
    return counts


def in_shares(counts: Ints) -> Floats:
    """Every row of counts as shares of its sum; NaN where it is 0."""
    sums = counts.sum(1, keepdims=True)
    return np.asarray(np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0))


def surest_mistakes(scores: Floats, correct: Bools, count: int) -> list[int]:
    """The wrong rows of the highest confidence, highest first."""
    wrong = np.flatnonzero(~correct)
    ranked = wrong[np.argsort(-scores.max(1)[wrong], kind="stable")]
    return [int(row) for row in ranked[:count]]


def paired_difference(correct: Bools, other: Bools, resamples: int = 1000) -> tuple[float, tuple[float, float]]:
    """Accuracy of ``correct`` less that of ``other`` on the same rows, with the 95 % bootstrap interval over rows."""
    apart = correct.astype(float) - other.astype(float)
    interval = bootstrap_interval(lambda rows: float(apart[rows].mean()), len(apart), resamples=resamples)
    return float(apart.mean()), interval
