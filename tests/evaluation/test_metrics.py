"""Every metric against numbers worked out by hand, and against scikit-learn on random data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from toolkit.evaluation.metrics import (
    bootstrap_interval,
    bootstrap_intervals,
    calibration_error,
    gold_loss,
    one_hot_argmax,
    score_labels,
    top_correct,
)

GOLD = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
PREDICTED = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool)


def test_scores_of_three_labels() -> None:
    # label 0: 2 of 3 calls right, 2 of 3 found; label 1: 1 of 1 and 1 of 2; label 2: called once, never there
    found = score_labels(PREDICTED, GOLD)
    assert found.precision.tolist() == pytest.approx([2 / 3, 1, 0])
    assert found.recall.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert found.f1.tolist() == pytest.approx([2 / 3, 2 / 3, 0])
    assert found.support.tolist() == [3, 2, 0]
    assert found.macro() == pytest.approx(4 / 9)
    assert found.micro_f1 == pytest.approx(2 * 3 / (5 + 5))
    assert found.weighted(found.precision) == pytest.approx((3 * 2 / 3 + 2 * 1) / 5)
    assert found.weighted(found.recall) == pytest.approx(3 / 5)


def test_nothing_predicted_scores_nothing() -> None:
    found = score_labels(np.zeros((4, 3), dtype=bool), np.zeros((4, 3), dtype=bool))
    assert (found.macro(), found.micro_f1, found.weighted(found.f1)) == (0, 0, 0)


def test_the_top_label_counts_if_it_is_any_of_the_gold_labels() -> None:
    posterior = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])
    assert top_correct(posterior, GOLD).tolist() == [True, True, False, False]
    assert top_correct(posterior, GOLD, 3).all()
    assert one_hot_argmax(posterior).argmax(1).tolist() == [0, 1, 0, 2]
    assert one_hot_argmax(posterior).sum() == 4


def test_calibration_error_in_two_bins() -> None:
    confidence = np.array([0.9, 0.6, 0.8, 0.5])
    correct = np.array([True, True, True, False])
    # low bin 0.5 and 0.6: mean .55, right .5; high bin 0.8 and 0.9: mean .85, right 1
    assert calibration_error(confidence, correct, bins=2) == pytest.approx((0.05 + 0.15) / 2)


def test_calibration_error_weighs_bins_of_unequal_size() -> None:
    confidence, correct = np.array([0.1, 0.2, 0.6]), np.array([False, False, True])
    # two bins of three rows: {.1, .2} and {.6}
    assert calibration_error(confidence, correct, bins=2) == pytest.approx((2 * 0.15 + 1 * 0.4) / 3)


def test_calibration_error_of_fewer_rows_than_bins() -> None:
    assert calibration_error(np.array([1.0]), np.array([True])) == 0
    assert math.isnan(calibration_error(np.array([]), np.array([], dtype=bool)))


def test_loss_is_of_the_mass_on_all_gold_labels() -> None:
    posterior = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    gold = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    assert gold_loss(posterior, gold) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert gold_loss(np.array([[1.0, 0.0]]), np.array([[False, True]])) == pytest.approx(-math.log(1e-12))


def test_the_bootstrap_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(lambda picked: float(values[picked].mean()), 400)
    assert low == pytest.approx(values.mean() - 1.96 * 2 / 20, abs=0.05)
    assert high == pytest.approx(values.mean() + 1.96 * 2 / 20, abs=0.05)
    assert (low, high) == bootstrap_interval(lambda picked: float(values[picked].mean()), 400)


def test_a_label_that_was_not_drawn_is_left_out_and_not_counted_as_missed() -> None:
    gold = np.eye(3, dtype=bool)[[0, 0, 0, 1]]  # the third label has no row at all
    known = gold.any(0)
    assert score_labels(gold, gold).macro() == pytest.approx(2 / 3)
    without = score_labels(gold[[0, 1, 1, 2]], gold[[0, 1, 1, 2]])
    assert without.f1.tolist() == [1, 0, 0]
    assert without.macro(known) == pytest.approx(2 / 3)  # 1 of the label that was drawn, on 2 of 3 labels
    predicted = gold.copy()
    predicted[0] = gold[3]  # called the second, and is the first
    drawn = score_labels(predicted[[0, 0, 1, 2]], gold[[0, 0, 1, 2]])
    assert drawn.macro(known) == pytest.approx(2 / 3 * (2 * 2 / (2 + 4)))
    assert score_labels(predicted, gold).macro(known) == pytest.approx(score_labels(predicted, gold).macro())


@pytest.mark.parametrize("labels", [2, 3])
def test_a_perfect_reader_of_a_rare_label_is_perfect_in_every_resample(labels: int) -> None:
    gold = np.eye(labels, dtype=bool)[[0] * 9 + [1]]  # one draw in three is without the second label
    interval = bootstrap_interval(lambda rows: score_labels(gold[rows], gold[rows]).macro(gold.any(0)), 10)
    assert interval == pytest.approx((2 / labels, 2 / labels))


def test_intervals_of_the_same_resamples() -> None:
    values = np.random.default_rng(0).normal(5, 2, 50)
    found = bootstrap_intervals(lambda rows: {"a": values[rows].mean(), "b": 2 * values[rows].mean()}, 50)
    assert found["a"] == bootstrap_interval(lambda rows: values[rows].mean(), 50)
    assert found["b"] == pytest.approx((2 * found["a"][0], 2 * found["a"][1]))
    moved = bootstrap_intervals(lambda rows: {"b": 2 * values[rows].mean()}, 50, centres={"b": 0.0})
    assert moved["b"][1] - moved["b"][0] == pytest.approx(found["b"][1] - found["b"][0])
    assert moved["b"][0] < 0 < moved["b"][1]


def test_the_interval_of_the_calibration_error_holds_it() -> None:
    """Every resample of a well calibrated model is worse calibrated than the whole, by repeats alone."""
    random = np.random.default_rng(0)
    confidence = random.beta(4, 3, 2_000)
    correct = random.random(2_000) < confidence
    error = calibration_error(confidence, correct)

    def resampled(rows: np.ndarray) -> dict[str, float]:
        return {"ece": calibration_error(confidence[rows], correct[rows])}

    assert bootstrap_intervals(resampled, 2_000, resamples=200)["ece"][0] > error
    low, high = bootstrap_intervals(resampled, 2_000, resamples=200, centres={"ece": error})["ece"]
    assert 0 < low < error < high


def test_scikit_learn_agrees() -> None:
    random = np.random.default_rng(7)
    gold, predicted = random.random((500, 28)) < 0.1, random.random((500, 28)) < 0.1
    gold[:, 3] = predicted[:, 3] = False
    found = score_labels(predicted, gold)
    for average, mine in (
        (None, (found.precision, found.recall, found.f1)),
        ("weighted", tuple(found.weighted(v) for v in (found.precision, found.recall, found.f1))),
    ):
        theirs = sklearn_metrics.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)
        for got, wanted in zip(mine, theirs[:3], strict=True):
            np.testing.assert_allclose(got, wanted)
    assert found.macro() == pytest.approx(sklearn_metrics.f1_score(gold, predicted, average="macro", zero_division=0))
    assert found.micro_f1 == pytest.approx(sklearn_metrics.f1_score(gold, predicted, average="micro", zero_division=0))
