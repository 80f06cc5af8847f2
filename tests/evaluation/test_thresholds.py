"""Thresholds, temperature and abstention: by hand, against brute force, and without a look at the held-out fold."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.evaluation.metrics import gold_loss, score_labels
from toolkit.evaluation.thresholds import (
    NEVER,
    cross_fit,
    cross_fit_abstention,
    fit_abstention,
    fit_temperature,
    fit_threshold,
    folds,
)
from toolkit.inference.posterior import apply_temperature


def test_the_threshold_lies_between_those_that_have_the_label_and_the_others() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.1])
    gold = np.array([True, True, True, False, False])
    assert fit_threshold(scores, gold) == pytest.approx(0.5, abs=0.05)


def test_a_threshold_that_is_best_by_luck_is_passed_over() -> None:
    """One row that lies far below the others makes a narrow peak of F1; the broad top beside it is the safer choice."""
    scores = np.concatenate([np.full(20, 0.9), np.linspace(0.2, 0.6, 30), [0.0501], np.full(200, 0.05)])
    gold = np.concatenate([np.ones(20), np.zeros(30), [1], np.zeros(200)]).astype(bool)
    peaked = scores.copy()
    peaked[20:50] = 0.02  # now nothing stands between the lone row and the others but those below it
    assert 0.6 < fit_threshold(scores, gold) < 0.9
    assert f1_at(peaked, gold, 0.0501) > f1_at(peaked, gold, 0.5)
    assert fit_threshold(peaked, gold) > 0.1


def test_the_order_of_equal_scores_does_not_matter() -> None:
    scores, gold = np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, False, True])
    assert fit_threshold(scores, gold) == fit_threshold(scores[::-1], gold[::-1])


def test_very_small_probabilities_are_cut_too() -> None:
    scores, gold = np.array([2e-4, 1.9e-4, 1e-5, 1.1e-5]), np.array([True, True, False, False])
    assert 1.1e-5 < fit_threshold(scores, gold) < 1.9e-4


def test_a_label_without_gold_is_never_called() -> None:
    assert fit_threshold(np.array([0.9, 0.99]), np.array([False, False])) == NEVER


def test_no_other_threshold_is_better_in_the_mean_of_those_around_it() -> None:
    """Against F1 averaged over four hundred thresholds drawn around each candidate."""
    random = np.random.default_rng(3)
    scores = random.random(60).round(2)
    gold = random.random(60) < scores**2
    around = random.normal(0, 0.5, 400)

    def mean_f1(threshold: float) -> float:
        odds = np.log(threshold / (1 - threshold)) + around
        return float(np.mean([f1_at(scores, gold, cut) for cut in 1 / (1 + np.exp(-odds))]))

    best = mean_f1(fit_threshold(scores, gold))
    assert all(mean_f1(cut) <= best + 0.005 for cut in np.linspace(0.02, 0.98, 49))


def f1_at(scores: np.ndarray, gold: np.ndarray, threshold: float) -> float:
    return float(score_labels((scores >= threshold)[:, None], gold[:, None]).f1[0])


def test_every_row_is_held_out_once() -> None:
    pairs = list(folds(103))
    assert sorted(np.concatenate([held for _, held in pairs])) == list(range(103))
    assert all(not set(fit) & set(held) and len(fit) + len(held) == 103 for fit, held in pairs)
    assert all((a[1] == b[1]).all() for a, b in zip(pairs, folds(103), strict=True))


def test_a_held_out_row_does_not_move_its_own_threshold() -> None:
    random = np.random.default_rng(1)
    posterior = random.dirichlet(np.ones(5), 100)
    gold = np.eye(5, dtype=bool)[[random.choice(5, p=p) for p in posterior]]
    row = int(next(folds(100))[1][0])
    changed = gold.copy()
    changed[row] = ~gold[row]
    before = cross_fit(posterior, gold, gold, lambda p: p, tempered=True)
    after = cross_fit(posterior, changed, changed, lambda p: p, tempered=True)
    assert (before[1][row] == after[1][row]).all()
    np.testing.assert_array_equal(before[0][row], after[0][row])
    assert (before[0] != after[0]).any()  # the other folds do see it


def test_without_a_temperature_the_scores_stay_as_they_are() -> None:
    posterior = np.random.default_rng(1).dirichlet(np.ones(3), 30)
    gold = np.eye(3, dtype=bool)[posterior.argmax(1)]
    np.testing.assert_array_equal(cross_fit(posterior, gold, gold, lambda p: p, tempered=False)[0], posterior)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_rows_than_folds(n: int) -> None:
    posterior = np.full((n, 3), 1 / 3)
    scores, predicted = cross_fit(posterior, np.eye(3, dtype=bool)[[0] * n], np.eye(3, dtype=bool)[[0] * n],
                                  lambda p: p, tempered=True)  # fmt: skip
    assert scores.shape == predicted.shape == (n, 3)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.8])
def test_the_temperature_that_was_applied_is_found_again(temperature: float) -> None:
    random = np.random.default_rng(5)
    true = random.dirichlet(np.full(6, 0.5), 20_000)
    gold = np.eye(6, dtype=bool)[[random.choice(6, p=p) for p in true]]
    distorted = apply_temperature(true, 1 / temperature)
    found = fit_temperature(distorted, gold)
    assert found == pytest.approx(temperature, rel=0.03)
    assert gold_loss(apply_temperature(distorted, found), gold) <= gold_loss(true, gold)


def test_abstention_answers_as_many_as_the_risk_allows() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    correct = np.array([True, True, False, True, False, False])
    # errors among the answered: 0, 0, 1/3, 1/4, 2/5, 1/2
    assert fit_abstention(confidence, correct, 0.25) == pytest.approx(0.6)
    assert fit_abstention(confidence, correct, 0.1) == pytest.approx(0.8)
    assert fit_abstention(confidence, correct, 0.5) == 0.0
    assert fit_abstention(confidence, ~correct, 0.1) == NEVER


def test_a_held_out_row_does_not_move_its_own_cut() -> None:
    random = np.random.default_rng(4)
    confidence = random.random(100)
    correct = random.random(100) < confidence
    answered, mean = cross_fit_abstention(confidence, correct, 0.25)
    assert 0 < mean < 1
    for fit, held_out in folds(100):
        cut = fit_abstention(confidence[fit], correct[fit], 0.25)
        assert (answered[held_out] == (confidence[held_out] >= cut)).all()
    assert cross_fit_abstention(np.array([0.4]), np.array([True]), 0.25)[0].tolist() == [True]


def test_abstention_does_not_cut_equal_confidences_apart() -> None:
    confidence, correct = np.array([0.9, 0.5, 0.5]), np.array([True, True, False])
    assert fit_abstention(confidence, correct, 0.3) == pytest.approx(0.9)
