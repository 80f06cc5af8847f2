"""Texts by their place among the others: how far from all of them, and which lie so close that they say the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.corpora.embeddings import Vectors
from toolkit.corpora.threads import one_thread

_BLOCK = 256  # rows compared with all others at once, which bounds the memory

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@one_thread()
def nearest(vectors: Vectors, count: int) -> tuple[Floats, Places]:
    """For each row the cosine similarities of its ``count`` nearest others, highest first, and their places.

    Args:
        vectors: rows of length 1. With ``n`` rows at most ``n - 1`` neighbours come back.
    """
    count = min(count, len(vectors) - 1)
    similarities = np.zeros((len(vectors), max(count, 0)))
    places = np.zeros(similarities.shape, dtype=np.int64)
    if count < 1:
        return similarities, places
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK]) @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -2.0  # nobody is their own neighbour
        found = np.argpartition(-block, count - 1, axis=1)[:, :count]
        found.sort(axis=1)  # of equals the first
        order = np.argsort(-np.take_along_axis(block, found, axis=1), axis=1, kind="stable")
        found = np.take_along_axis(found, order, axis=1)
        places[start : start + len(block)] = found
        similarities[start : start + len(block)] = np.take_along_axis(block, found, axis=1)
    return similarities, places


def strangeness(similarities: Floats) -> Floats:
    """How far each row lies from its nearest: 1 less the mean of their cosine similarities, from 0 to 1."""
    if not similarities.shape[1]:
        return np.zeros(len(similarities))
    far: Floats = np.clip(1.0 - similarities.mean(axis=1), 0.0, 1.0)
    return far


def groups(similarities: Floats, places: Places, least: float) -> Places:
    """For each row the first row of its group: rows at least so similar to a neighbour share its group."""
    leader = list(range(len(similarities)))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for row, column in np.argwhere(similarities >= least):
        first, second = find(int(row)), find(int(places[row, column]))
        leader[max(first, second)] = min(first, second)
    return np.array([find(row) for row in range(len(leader))], dtype=np.int64)
