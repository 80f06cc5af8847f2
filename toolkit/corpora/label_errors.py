"""Labels that do not fit their text: confident learning (Northcutt et al., JAIR 2021) as cleanlab does it.

It needs probabilities from a model that has not seen the text: a small network over embeddings, fitted on the other
folds, and the word model of :mod:`toolkit.corpora.lexicon`; the mean of both knows the labels better than either.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.example import Example
from toolkit.corpora.embeddings import Vectors
from toolkit.corpora.threads import one_thread

Floats = NDArray[np.float64]
_HIDDEN, _BATCH = 128, 256
_ROUNDS, _UPDATES = 12, 300  # rounds over the rows, and more where they are too few for so many updates


@one_thread()
def probabilities_of_fold(
    vectors: Vectors, gold: NDArray[np.int8], alike: NDArray[np.int64], folds: int, seed: int
) -> Floats:
    """The probability of each label for each row, from a network fitted on the other folds.

    Args:
        gold: rows by labels, 0 or 1.
        alike: rows with the same number share a fold, so that no text is judged by its own copy.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    numbers = np.unique(alike)
    lots = np.random.default_rng(seed).integers(0, folds, size=int(numbers.max()) + 1)
    fold = lots[alike]
    result = np.zeros(gold.shape)
    for k in range(folds):
        seen, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if not (seen.size and held.size):
            continue
        batch = min(_BATCH, seen.size)
        network = MLPClassifier(
            (_HIDDEN,),
            batch_size=batch,
            max_iter=max(_ROUNDS, _UPDATES * batch // seen.size),
            learning_rate_init=2e-3,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # so many rounds are meant
            network.fit(vectors[seen], gold[seen])
        result[held] = network.predict_proba(vectors[held])
    return result


def gold_matrix(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.int8]:
    """Which text bears which label: rows by labels, 0 or 1."""
    place = {label: column for column, label in enumerate(labels)}
    gold = np.zeros((len(examples), len(labels)), dtype=np.int8)
    for row, example in enumerate(examples):
        for label in example.labels:
            gold[row, place[label]] = 1
    return gold


def find_label_errors(gold: NDArray[np.int8], probabilities: Floats) -> NDArray[np.bool_]:
    """Whether confident learning takes some label of each row for wrong or for missing.

    Args:
        probabilities: rows by labels, each from 0 to 1, out of fold.
    """
    from cleanlab.multilabel_classification.filter import find_label_issues

    labels = [np.flatnonzero(row).tolist() for row in gold]
    wrong = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    return np.asarray(wrong, dtype=bool)


def rivals(gold: NDArray[np.int8], probabilities: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """How far the likeliest other label beats the best of the row's own, and which one it is.

    The measure is its share of both probabilities: 0.5 where they are equal, 1 where the own ones have none.
    """
    own = np.where(gold == 1, probabilities, 0.0).max(axis=1)
    others = np.where(gold == 1, 0.0, probabilities)
    best = others.max(axis=1)
    return best / np.maximum(best + own, 1e-12), others.argmax(axis=1)
