"""Flags by embeddings: planted strangers, copies and wrong labels are found, and what is right is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.contract.example import Example
from toolkit.corpora.embeddings import Vectors
from toolkit.corpora.label_errors import find_label_errors, gold_matrix, probabilities_of_fold, rivals
from toolkit.corpora.suspects import EmbeddingConfig, check_embedded

LABELS = ("joy", "anger", "neutral")
EACH = 60
WRONG = (3, EACH + 5, 2 * EACH + 7)  # rows whose label is planted wrong
CONFIG = EmbeddingConfig(check=True, outlier_share=0.005, alike=0.9999, label_error=0.7, neighbours=5)


class Undecided:
    """A second witness that knows nothing."""

    labels = LABELS

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.full((len(texts), len(LABELS)), 1 / 3)


@pytest.fixture(scope="module")
def clouds() -> tuple[list[Example], Vectors]:
    """Three clouds of texts, one for each label; a row far from all of them; and a row that doubles the first."""
    chance = np.random.default_rng(0)
    points = np.repeat(np.eye(3, 6), EACH, axis=0) + 0.15 * chance.normal(size=(3 * EACH, 6))
    points = np.concatenate([points, [[-1.0, -1.0, -1.0, 0.0, 0.0, 0.0]], points[:1]])
    labels = [LABELS[row // EACH] for row in range(3 * EACH)] + ["neutral", "joy"]
    for row in WRONG:
        labels[row] = LABELS[(row // EACH + 1) % 3]
    examples = [Example(f"text {row}", (label,), id=f"id{row}") for row, label in enumerate(labels)]
    return examples, (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_what_is_planted_is_flagged_with_its_score_and_a_note(clouds: tuple[list[Example], Vectors]) -> None:
    checks = check_embedded(*clouds, Undecided(), CONFIG)

    def flagged(name: str) -> list[int]:
        return [row for row, check in enumerate(checks) if name in check.flags]

    assert flagged("outlier") == [3 * EACH]
    assert flagged("alike") == [3 * EACH + 1]
    assert checks[3 * EACH + 1].notes["alike"] == "like id0, in a group of 2"
    assert [row for row in flagged("label_error") if row < 3 * EACH] == list(WRONG)
    assert checks[3].notes["label_error"] == "labelled anger, reads like joy"
    assert all(0.0 <= score <= 1.0 for check in checks for score in check.scores.values())


def test_no_share_flags_nothing_and_a_larger_one_more(clouds: tuple[list[Example], Vectors]) -> None:
    for share, count in ((0.0, 0), (0.1, 19)):
        config = CONFIG.model_copy(update={"outlier_share": share})
        assert sum("outlier" in check.flags for check in check_embedded(*clouds, Undecided(), config)) == count


def test_the_same_seed_gives_the_same_scores(clouds: tuple[list[Example], Vectors]) -> None:
    assert check_embedded(*clouds, Undecided(), CONFIG) == check_embedded(*clouds, Undecided(), CONFIG)


def test_rows_alike_share_a_fold_so_that_no_copy_gives_the_label_away() -> None:
    chance = np.random.default_rng(1)
    points = np.repeat(chance.normal(size=(40, 16)), 2, axis=0)
    vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    gold = np.repeat(np.eye(2, dtype=np.int8)[chance.integers(0, 2, 40)], 2, axis=0)
    together = probabilities_of_fold(vectors, gold, np.arange(80) // 2, 4, 0)
    apart = probabilities_of_fold(vectors, gold, np.arange(80), 4, 0)

    assert np.array_equal(together[::2], together[1::2])

    def truth(read: NDArray[np.float64]) -> float:
        return float((read * gold).sum(axis=1).mean())

    assert truth(apart) > truth(together) + 0.1  # the labels are chance: only a copy can tell them


def test_gold_is_a_row_of_zeros_and_ones_in_the_order_of_the_labels() -> None:
    examples = [Example("a", ("anger", "neutral")), Example("b", ("joy",))]
    assert gold_matrix(examples, LABELS).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_confident_learning_finds_the_one_wrong_row() -> None:
    gold = np.array([[1, 0]] * 10 + [[0, 1]] * 10, dtype=np.int8)
    read = np.where(gold == 1, 0.9, 0.1)
    gold[4] = [0, 1]
    assert np.flatnonzero(find_label_errors(gold, read)).tolist() == [4]


def test_a_rival_is_the_likeliest_label_that_a_row_does_not_have() -> None:
    gold = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=np.int8)
    doubt, rival = rivals(gold, np.array([[0.2, 0.6, 0.1], [0.3, 0.1, 0.3], [0.5, 0.4, 0.0]]))
    assert doubt == pytest.approx([0.75, 0.5, 1.0])
    assert rival.tolist() == [1, 2, 0]
