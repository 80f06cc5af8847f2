"""Filters on copies: exact ones, near ones inside a split, and near ones of a text in another split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from toolkit.contract.example import Example
from toolkit.corpora.filters import Filter, Finding
from toolkit.corpora.spans import words_of


def exact_duplicates() -> Filter:
    """Drops a text that it has seen before."""
    seen: set[str] = set()

    def judge(example: Example) -> Finding | None:
        text = " ".join(example.text.split())
        if text in seen:
            return Finding("exact duplicate")
        seen.add(text)
        return None

    return judge


def near_duplicates(held_out: Iterable[Example], similarity: float) -> Filter:
    """Drops texts that are so similar to a text of another split; see :class:`Pieces`."""
    known = Pieces(similarity)
    for example in held_out:
        known.add(example.text)

    def judge(example: Example) -> Finding | None:
        return Finding("near duplicate of another split") if known.holds_like(example.text) else None

    return judge


def near_copies(similarity: float) -> Filter:
    """Drops texts that are so similar to an earlier one of the same split."""
    known = Pieces(similarity)

    def judge(example: Example) -> Finding | None:
        if known.holds_like(example.text):
            return Finding("near duplicate")
        known.add(example.text)
        return None

    return judge


class Pieces:
    """Texts found again by their word triples.

    The measure is Jaccard's over sets of three neighbouring words, case, punctuation and digits aside; shorter texts
    count as one piece.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._sizes: list[int] = []
        self._holders: dict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        """Remember ``text``."""
        pieces = _pieces(text)
        for piece in pieces:
            self._holders[piece].append(len(self._sizes))
        self._sizes.append(len(pieces))

    def holds_like(self, text: str) -> bool:
        """Whether a remembered text is at least as similar to ``text`` as is asked for."""
        own = _pieces(text)
        shared = Counter(number for piece in own for number in self._holders.get(piece, ()))
        return any(n >= self.similarity * (len(own) + self._sizes[k] - n) for k, n in shared.items())


def _pieces(text: str) -> frozenset[str]:
    forms = [re.sub(r"\d+", "0", w.form) for w in words_of(text)]
    if len(forms) < 4:
        return frozenset([" ".join(forms) or text.strip()])
    return frozenset(" ".join(forms[i : i + 3]) for i in range(len(forms) - 2))
