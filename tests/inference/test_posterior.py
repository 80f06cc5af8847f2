"""Posterior arithmetic with numbers by hand."""

import numpy as np
import pytest

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import Branch, LabelTrie
from toolkit.inference.posterior import apply_temperature, best_native, coarsen, pool_windows, trie_posterior

# Tokens 0 to 4; labels a = [1], b = [2, 3], c = [2, 4].
TRIE = LabelTrie(
    ("a", "b", "c"),
    ((1,), (2, 3), (2, 4)),
    (Branch((), (1, 2), ((0,), (1, 2))), Branch((2,), (3, 4), ((1,), (2,)))),
)


def test_trie_posterior_multiplies_along_the_path() -> None:
    root = np.log(np.array([0.5, 0.3, 0.1, 0.05, 0.05]))  # within {1, 2}: 3/4 and 1/4
    below = np.log(np.array([0.2, 0.1, 0.1, 0.45, 0.15]))  # within {3, 4}: 3/4 and 1/4
    posterior, coverage = trie_posterior(TRIE, {0: root, 1: below})
    assert posterior == pytest.approx([0.75, 0.25 * 0.75, 0.25 * 0.25])
    assert coverage == pytest.approx(0.3 + 0.1 * (0.45 + 0.15))


def test_logits_of_any_size_stay_finite() -> None:
    posterior, coverage = trie_posterior(TRIE, {0: np.array([1e4, -1e4, 0, 0, 0.0]), 1: np.full(5, -1e4)})
    assert np.isfinite(posterior).all()
    assert posterior.sum() == pytest.approx(1)
    assert coverage == pytest.approx(0)


def test_temperature_keeps_the_order_and_one_changes_nothing() -> None:
    p = np.array([[0.7, 0.2, 0.1]])
    assert apply_temperature(p, 1.0) is p
    warm = apply_temperature(p, 2.0)
    assert warm.sum() == pytest.approx(1)
    assert warm[0].argsort().tolist() == p[0].argsort().tolist()
    assert warm[0, 0] == pytest.approx(0.7**0.5 / (0.7**0.5 + 0.2**0.5 + 0.1**0.5))


def test_coarse_scores_are_sums_and_shared10_conditions() -> None:
    labels = load_taxonomy("goemotions").labels
    p = np.zeros((1, len(labels)))
    for label, mass in {"joy": 0.3, "amusement": 0.2, "anger": 0.1, "neutral": 0.4}.items():
        p[0, labels.index(label)] = mass
    ekman, outside = coarsen(p, "goemotions", "ekman")
    assert dict(zip(load_taxonomy("ekman").labels, ekman[0], strict=True))["joy"] == pytest.approx(0.5)
    assert outside[0] == pytest.approx(0)
    shared, outside = coarsen(p, "goemotions", "shared10")
    assert outside[0] == pytest.approx(0.2)
    assert dict(zip(load_taxonomy("shared10").labels, shared[0], strict=True))["neutral"] == pytest.approx(0.5)
    winner = load_taxonomy("ekman").index("joy")
    assert labels[best_native(p[0], "goemotions", "ekman", winner)] == "joy"


def test_windows_are_pooled_by_their_tokens() -> None:
    pooled = pool_windows(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([300, 100]))
    assert pooled == pytest.approx([0.75, 0.25])
