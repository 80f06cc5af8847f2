"""Every metric against numbers worked out by hand, and against scikit-learn on random data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from toolkit.evaluation.metrics import (
    bootstrap_interval,
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
