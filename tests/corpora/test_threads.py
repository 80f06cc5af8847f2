"""How many threads a machine offers changes no byte of a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - brings its own copy of BLAS
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.embeddings import DEFAULT_MODEL, embed
from toolkit.corpora.label_errors import gold_matrix, probabilities_of_fold
from toolkit.corpora.lexicon import fit
from toolkit.corpora.neighbours import nearest
from toolkit.corpora.threads import one_thread, one_torch_thread

LABELS = load_taxonomy("goemotions").labels
RANDOM = np.random.default_rng(3)
VECTORS = RANDOM.standard_normal((700, 384)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def widths() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_holds_every_library_and_lets_go_again() -> None:
    with threadpool_limits(3):
        before = widths()
        with one_thread():
            assert set(widths()) == {1}
        assert widths() == before
        assert 3 in before


def test_torch_is_held_apart_and_let_go_even_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError), one_torch_thread():
            _ = 1 / (torch.get_num_threads() - 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def scores(threads: int, corpus: list[Example]) -> list[bytes]:
    """What the fits and the search give where the machine offers so many threads."""
    with threadpool_limits(threads):
        lexicon = fit(corpus, LABELS)
        gold = np.tile(gold_matrix(corpus, LABELS), (7, 1))[: len(VECTORS)]
        network = probabilities_of_fold(VECTORS, gold, np.arange(len(VECTORS)), 3, 0)
        similarities, places = nearest(VECTORS, 10)
    return [array.tobytes() for array in (lexicon.coefficients, lexicon.intercepts, network, similarities, places)]


def test_the_fits_give_the_same_bytes_with_one_and_with_three_threads(corpus: list[Example]) -> None:
    assert scores(1, corpus) == scores(3, corpus)


def test_embeddings_are_the_same_bytes_with_one_and_with_three_threads(tmp_path: Path, corpus: list[Example]) -> None:
    texts, before = [example.text for example in corpus], torch.get_num_threads()
    rows = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            rows.append(embed(texts, DEFAULT_MODEL, tmp_path / str(threads)).tobytes())
    finally:
        torch.set_num_threads(before)
    assert rows[0] == rows[1]
