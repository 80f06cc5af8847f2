"""Nearest neighbours, strangers and groups, on points of the circle by hand."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.corpora.embeddings import Vectors
from toolkit.corpora.neighbours import groups, nearest, strangeness


def circle(*degrees: float) -> Vectors:
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_neighbours_come_nearest_first_and_never_the_row_itself() -> None:
    similarities, places = nearest(circle(0, 10, 30, 90), 2)
    assert places.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert similarities[0] == pytest.approx([np.cos(np.deg2rad(10)), np.cos(np.deg2rad(30))], abs=1e-6)


def test_the_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = circle(*np.random.default_rng(1).uniform(0, 360, 40))
    whole = nearest(vectors, 5)
    monkeypatch.setattr("toolkit.corpora.neighbours._BLOCK", 7)
    parts = nearest(vectors, 5)
    assert np.array_equal(whole[1], parts[1])
    assert whole[0] == pytest.approx(parts[0], abs=1e-6)


def test_who_is_far_from_all_is_strange() -> None:
    similarities, _ = nearest(circle(0, 5, 10, 15, 180), 2)
    far = strangeness(similarities)
    assert far.argmax() == 4
    assert far[4] == 1.0  # behind all others: cut at the end of the scale
    assert far[:4].max() < 0.02


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_have_no_neighbours(rows: int) -> None:
    similarities, places = nearest(circle(*range(rows)), 10)
    assert similarities.shape == places.shape == (rows, 0)
    assert strangeness(similarities).tolist() == [0.0] * rows
    assert groups(similarities, places, 0.9).tolist() == list(range(rows))


def test_a_group_is_a_chain_named_for_its_first_row() -> None:
    similarities, places = nearest(circle(90, 0, 92, 94, 3, 200), 3)
    assert groups(similarities, places, 0.99).tolist() == [0, 1, 0, 0, 1, 5]
    assert groups(similarities, places, 1.0).tolist() == [0, 1, 2, 3, 4, 5]
