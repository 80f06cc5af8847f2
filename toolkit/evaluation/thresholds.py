"""What is fitted on dev: a threshold per label, a temperature, and the confidence below which to abstain."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.metrics import Bools, Floats, gold_loss
from toolkit.inference.posterior import apply_temperature

FOLDS = 5
SEED = 42
NEVER = 1.0
_GOLDEN = (5**0.5 - 1) / 2
_LOG_ODDS = np.linspace(-12, 12, 481)
_TRIED = 1 / (1 + np.exp(-_LOG_ODDS))
_NEARBY = np.exp(-0.5 * ((_LOG_ODDS[:, None] - _LOG_ODDS) / 0.5) ** 2)
_NEARBY /= _NEARBY.sum(1, keepdims=True)


def fit_threshold(scores: Floats, gold: Bools) -> float:
    """The threshold for one label around which F1 of ``scores >= threshold`` is best.

    F1 jumps with every row that a threshold passes, and the highest peak of a rare label is luck. So F1 is averaged
    over the thresholds nearby, with a normal weight of half a unit of log-odds.

    Args:
        scores: probability of the label, shape (n,).
        gold: whether the row has it, shape (n,).

    Returns:
        One of the thresholds tried, a twentieth of a unit of log-odds apart; of equally good ones the highest.
        ``NEVER`` where no row has the label, or none of them is found by any.
    """
    if not gold.any():
        return NEVER
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([[0], np.cumsum(gold[order])])
    called = np.searchsorted(-scores[order], -_TRIED, side="right")
    f1 = _NEARBY @ (2 * hits[called] / (called + gold.sum()))
    return float(_TRIED[np.flatnonzero(f1 >= f1.max() - 1e-9)[-1]]) if f1.any() else NEVER


def fit_thresholds(posterior: Floats, gold: Bools) -> Floats:
    """:func:`fit_threshold` for every label; posterior and gold of shape (n, k), result (k,)."""
    return np.array([fit_threshold(posterior[:, k], gold[:, k]) for k in range(posterior.shape[1])])


def folds(n: int, count: int = FOLDS, seed: int = SEED) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Random folds over n rows as pairs of (rows to fit on, rows held out); every row is held out once."""
    order = np.random.default_rng(seed).permutation(n)
    for held_out in np.array_split(order, count):
        yield np.setdiff1d(order, held_out), np.sort(held_out)


def fit_temperature(posterior: Floats, gold: Bools, low: float = 0.25, high: float = 4.0) -> float:
    """The temperature T that minimises the loss of ``p^(1/T)``, renormalised (Guo et al., 2017).

    Args:
        posterior: uncalibrated, shape (n, k).
        gold: shape (n, k).
        low: smallest T.
        high: largest T.

    Returns:
        T to about 0.001, by golden-section search over log T; 1 for no rows.
    """
    if not len(posterior):
        return 1.0
    left, right = np.log(low), np.log(high)
    while right - left > 1e-3:
        a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        if _loss_at(posterior, gold, a) < _loss_at(posterior, gold, b):
            right = b
        else:
            left = a
    return float(np.exp((left + right) / 2))


def _loss_at(posterior: Floats, gold: Bools, log_temperature: float) -> float:
    return gold_loss(apply_temperature(posterior, float(np.exp(log_temperature))), gold)


def cross_fit(
    posterior: Floats,
    native_gold: Bools,
    gold: Bools,
    project: Callable[[Floats], Floats],
    *,
    tempered: bool,
    count: int = FOLDS,
    seed: int = SEED,
) -> tuple[Floats, Bools]:
    """Judge every row by a temperature and thresholds that were fitted on the other folds.

    Args:
        posterior: native and uncalibrated, shape (n, native labels).
        native_gold: shape (n, native labels).
        gold: in the taxonomy that is judged, shape (n, k).
        project: from a native posterior to the taxonomy that is judged.
        tempered: whether to fit a temperature; 1 otherwise.
        count: number of folds.
        seed: of the folds.

    Returns:
        Scores of shape (n, k) and predictions of shape (n, k).
    """
    scores, predicted = np.zeros(gold.shape), np.zeros(gold.shape, dtype=bool)
    for fit, held_out in folds(len(gold), count, seed):
        temperature = fit_temperature(posterior[fit], native_gold[fit]) if tempered else 1.0
        calibrated = project(apply_temperature(posterior, temperature))
        scores[held_out] = calibrated[held_out]
        predicted[held_out] = calibrated[held_out] >= fit_thresholds(calibrated[fit], gold[fit])
    return scores, predicted


def fit_abstention(confidence: Floats, correct: Bools, risk: float) -> float:
    """The confidence below which to abstain, so that among the rows that are answered at most ``risk`` are wrong.

    Selective classification with the largest coverage (Geifman and El-Yaniv, 2017): of all cuts whose answered rows
    have an error rate of at most ``risk``, the one that answers most.

    Args:
        confidence: shape (n,).
        correct: shape (n,).
        risk: the error rate aimed at, 0 to 1.

    Returns:
        0.0 where all rows may be answered, ``NEVER`` where no cut reaches the risk; otherwise the lowest confidence
        that is answered.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    errors = np.cumsum(~correct[order]) / np.arange(1, len(ranked) + 1)
    allowed = errors <= risk
    allowed[:-1] &= ranked[:-1] != ranked[1:]
    if not allowed.any():
        return NEVER
    last = int(np.flatnonzero(allowed)[-1])
    return 0.0 if last == len(ranked) - 1 else float(ranked[last])


def cross_fit_abstention(
    confidence: Floats, correct: Bools, risk: float, *, count: int = FOLDS, seed: int = SEED
) -> tuple[Bools, float]:
    """Which rows are answered, shape (n,), each by the cut of the other folds; and the mean of the cuts.

    Arguments as for :func:`fit_abstention` and :func:`folds`.
    """
    answered, cuts = np.zeros(len(confidence), dtype=bool), []
    for fit, held_out in folds(len(confidence), count, seed):
        cuts.append(fit_abstention(confidence[fit], correct[fit], risk) if len(fit) else 0.0)
        answered[held_out] = confidence[held_out] >= cuts[-1]
    return answered, float(np.mean(cuts))
