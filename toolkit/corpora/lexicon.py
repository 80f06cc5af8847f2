"""A small interpretable model of which words carry which label: TF-IDF and one logistic regression per label.

It finds the words that a reasoning should quote, and, out of fold, judges whether a text supports its label.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.corpora.spans import MAX_WORDS, Word, adjoining, quotable, rounded, word_lists, words_of
from toolkit.corpora.threads import one_thread
from toolkit.errors import DataError

_JOINTS = frozenset(["and", "or", "but"])  # a quotation had better not run over one
_ARTICLES = frozenset(["a", "an", "the"])
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, ``text[start:end]``, and how strongly it speaks for a label (log-odds)."""

    start: int
    end: int
    weight: float

    def of(self, text: str) -> str:
        """The words themselves."""
        return text[self.start : self.end]


@dataclass(frozen=True)
class Lexicon:
    """The fitted model: one row of ``coefficients`` per label over words, pairs and triples."""

    labels: tuple[str, ...]
    vocabulary: dict[str, int]
    idf: Floats
    coefficients: Floats
    intercepts: Floats
    vectorizer: Any

    def probability(self, text: str) -> dict[str, float]:
        """The probability of each label for ``text``, each judged on its own; they need not sum to 1."""
        return dict(zip(self.labels, self.probabilities([text])[0].tolist(), strict=True))

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """One row per text, one column per label, each entry from 0 to 1."""
        logits = self.vectorizer.transform(texts) @ self.coefficients.T + self.intercepts
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float64)

    def carriers(self, text: str, label: str, limit: int = MAX_WORDS) -> list[Span]:
        """Spans of whole words that speak for ``label``, strongest first, none overlapping another.

        Args:
            limit: the most words that a span may have, as the contract counts them; at most four in any case.
        """
        words = words_of(text)
        if not words or label not in self.labels:
            return []
        scores = self._word_scores(words, self.labels.index(label))
        spans: list[Span] = []
        taken: set[int] = set()
        for seed in sorted(range(len(words)), key=lambda i: -scores[i]):
            if scores[seed] <= 0:
                break
            window = _best_window(text, words, scores, seed, taken, limit)
            if window:
                first, last = window
                taken.update(range(first, last + 1))
                spans.append(Span(words[first].start, words[last].end, float(sum(scores[first : last + 1]))))
        return sorted(spans, key=lambda s: -s.weight)

    def _word_scores(self, words: Sequence[Word], label: int) -> list[float]:
        """The share of each word in the evidence: an n-gram's weight is divided among its words."""
        forms = [w.form for w in words]
        scores = [0.0] * len(forms)
        norm = 0.0
        for size in (1, 2, 3):
            for i in range(len(forms) - size + 1):
                column = self.vocabulary.get(" ".join(forms[i : i + size]))
                if column is None:
                    continue
                norm += self.idf[column] ** 2
                for j in range(i, i + size):
                    scores[j] += self.idf[column] * self.coefficients[label, column] / size
        scale = norm**0.5 or 1.0
        return [s / scale for s in scores]


def tokenize(text: str) -> list[str]:
    """The lower-case words of ``text`` as the model counts them."""
    return [w.form for w in words_of(text)]


@one_thread()
def fit(examples: Sequence[Example], labels: Sequence[str], min_count: int = 3, strength: float = 4.0) -> Lexicon:
    """Fit on ``examples``; a label that no example has keeps coefficients of zero.

    Raises:
        DataError: where no n-gram is frequent enough.

    Args:
        min_count: an n-gram enters the vocabulary when this many texts hold it.
        strength: inverse of the regularisation, as in scikit-learn's ``C``.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        tokenizer=tokenize, token_pattern=None, lowercase=False, ngram_range=(1, 3), min_df=min_count
    )
    try:
        matrix = vectorizer.fit_transform([e.text for e in examples])
    except ValueError:  # scikit-learn's way to say that no n-gram is left
        raise DataError(
            f"{len(examples)} examples are too few to find the words that carry a label.", "Take more examples."
        ) from None
    gold = _gold(examples, labels)
    coefficients, intercepts = _fit_labels(matrix, gold, strength)
    vocabulary = {name: int(i) for name, i in vectorizer.vocabulary_.items()}
    return Lexicon(tuple(labels), vocabulary, vectorizer.idf_, coefficients, intercepts, vectorizer)


class FoldedLexicon:
    """Lexicons over folds of the training texts: each text is read by the one that has not seen it.

    Equal texts share a fold, so that a repeated comment never judges itself.
    """

    def __init__(self, examples: Sequence[Example], labels: Sequence[str], folds: int = 3, min_count: int = 3) -> None:
        self.labels = tuple(labels)
        fold = [_fold(e.text, folds) for e in examples]
        self._folds = [
            fit([e for e, f in zip(examples, fold, strict=True) if f != k], labels, min_count) for k in range(folds)
        ]

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """As :meth:`Lexicon.probabilities`, each row out of fold."""
        fold = np.array([_fold(text, len(self._folds)) for text in texts])
        result = np.zeros((len(texts), len(self.labels)))
        for k, lexicon in enumerate(self._folds):
            held = np.flatnonzero(fold == k)
            if held.size:
                result[held] = lexicon.probabilities([texts[int(i)] for i in held])
        return result

    def probability(self, text: str) -> dict[str, float]:
        """As :meth:`Lexicon.probability`, out of fold."""
        return self._unseen_by(text).probability(text)

    def carriers(self, text: str, label: str, limit: int = MAX_WORDS) -> list[Span]:
        """As :meth:`Lexicon.carriers`, out of fold: words that carry the label in other texts too."""
        return self._unseen_by(text).carriers(text, label, limit)

    def _unseen_by(self, text: str) -> Lexicon:
        return self._folds[_fold(text, len(self._folds))]


def _fold(text: str, folds: int) -> int:
    return zlib.crc32(" ".join(tokenize(text)).encode("utf-8", "replace")) % folds


def _gold(examples: Sequence[Example], labels: Sequence[str]) -> Floats:
    index = {label: i for i, label in enumerate(labels)}
    gold = np.zeros((len(examples), len(labels)))
    for row, example in enumerate(examples):
        for label in example.labels:
            gold[row, index[label]] = 1.0
    return gold


def _fit_labels(matrix: Any, gold: Floats, strength: float) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression

    coefficients = np.zeros((gold.shape[1], matrix.shape[1]))
    intercepts = np.full(gold.shape[1], -10.0)
    for column in range(gold.shape[1]):
        if 0 < gold[:, column].sum() < len(gold):
            model = LogisticRegression(C=strength, solver="liblinear", tol=1e-3, random_state=0)
            model.fit(matrix, gold[:, column])
            coefficients[column], intercepts[column] = model.coef_[0], model.intercept_[0]
    return coefficients, intercepts


def _best_window(
    text: str, words: Sequence[Word], scores: Sequence[float], seed: int, taken: set[int], limit: int
) -> tuple[int, int] | None:
    """The most telling span of at most ``limit`` words around ``seed`` that begins and ends where a phrase may."""
    best, found = float("-inf"), None
    for first in range(max(0, seed - MAX_WORDS + 1), seed + 1):
        for last in range(seed, min(len(words), first + MAX_WORDS)):
            window = words[first : last + 1]
            if taken.intersection(range(first, last + 1)) or not (rounded(window) and quotable(text, window)):
                continue
            if first and words[first - 1].form in word_lists().negations:  # "like it" says nothing of "don't like it"
                continue
            if count_words(text[window[0].start : window[-1].end]) > limit:
                continue
            value = _value(text, words, scores, first, last, scores[seed])
            if value > best:
                best, found = value, (first, last)
    return found


def _value(text: str, words: Sequence[Word], scores: Sequence[float], first: int, last: int, seed: float) -> float:
    """What the window says for the label, less a price per word and a fine for cutting off an intensifier."""
    lists = word_lists()
    value = sum(max(scores[i], 0.0) - 0.3 * seed for i in range(first, last + 1))
    value -= 0.3 * seed * sum(w.is_mask for w in words[first : last + 1])
    value -= 0.5 * seed * sum(w.form in _JOINTS for w in words[first:last])
    value -= 0.25 * seed * (words[first].form in _ARTICLES)
    if first and adjoining(text, words[first - 1], words[first]):
        before = words[first - 1].form
        value -= 0.4 * seed if before in lists.intensifiers else 0.0
        value -= 0.0 if before in lists.stop else min(0.1 * seed, 0.3)
    if last + 1 < len(words) and adjoining(text, words[last], words[last + 1]):
        value -= 0.0 if words[last + 1].form in lists.stop else min(0.3 * seed, 0.5)
    return value
