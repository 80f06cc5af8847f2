"""Words of a text with their places, and the spans of words that can be quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from toolkit.contract.answer import count_words
from toolkit.contract.prompt import load_prompt
from toolkit.corpora.yaml_assets import read_yaml

MAX_WORDS = 4
_WORD = re.compile(r"\[[A-Za-z]+\]|\w+(?:['’]\w+)*")
_MASK = re.compile(r"\[[A-Za-z]+\]")
_GLUE = "-/@_'’"
_FORBIDDEN = re.compile(r'["“”\\\x00-\x1f\x7f\u2028\u2029\u0085\u200b-\u200f\u202a-\u202e]')


@dataclass(frozen=True, slots=True)
class WordLists:
    """The lists of ``prompts/teacher/words.yaml``, which says what each is for."""

    stop: frozenset[str]
    dangling: frozenset[str]
    hanging: frozenset[str]
    takes_you: frozenset[str]
    negations: frozenset[str]
    intensifiers: frozenset[str]
    evaluative: frozenset[str]
    persons: frozenset[str]
    first_person: frozenset[str]
    second_person: frozenset[str]


@cache
def word_lists() -> WordLists:
    """The word lists, read once."""
    raw: dict[str, str] = read_yaml("prompts", "teacher", "words.yaml")
    return WordLists(**{name: frozenset(words.split()) for name, words in raw.items()})


@dataclass(frozen=True, slots=True)
class Word:
    """One word: ``text[start:end]``, and its lower-case form with straight apostrophes."""

    start: int
    end: int
    form: str

    @property
    def is_mask(self) -> bool:
        """Whether it stands for something masked, such as ``[NAME]``."""
        return self.form.startswith("[")


def words_of(text: str) -> list[Word]:
    """The words of ``text`` in order; apostrophes belong to the word."""
    return [Word(m.start(), m.end(), m.group().lower().replace("’", "'")) for m in _WORD.finditer(text)]


def allowance(text: str) -> int:
    """How many words of ``text`` a reasoning may quote: 40 % of them, and none in a text of fewer than three."""
    total = count_words(text)
    return 0 if total < 3 else max(1, int(load_prompt().max_quoted_share * total))


def adjoining(text: str, left: Word, right: Word) -> bool:
    """Whether nothing but one space or hyphen stands between two neighbours, so that a span may hold both."""
    return text[left.end : right.start] in (" ", "-")


def quotable(text: str, words: Sequence[Word]) -> bool:
    """Whether the span of these neighbouring words may stand between quotation marks."""
    span = text[words[0].start : words[-1].end]
    return (
        1 <= len(words) <= MAX_WORDS
        and not _FORBIDDEN.search(span)
        and any(w.form not in word_lists().stop and not w.is_mask for w in words)
        and all(adjoining(text, a, b) for a, b in pairwise(words))
        and not _cuts_word(text, words[0].start, words[-1].end)
        and len(span) <= 60
    )


def rounded(words: Sequence[Word]) -> bool:
    """Whether the span begins and ends where a phrase may."""
    if words[-1].form == "you" and (len(words) == 1 or words[-2].form not in word_lists().takes_you):
        return False
    cut_off = words[-1].form in word_lists().dangling or words[-1].form.endswith(
        ("n't", "'ll", "'ve", "'d", "'re", "'m")
    )
    return not cut_off and words[0].form not in word_lists().hanging


def _cuts_word(text: str, start: int, end: int) -> bool:
    """Whether the span would tear a compound, a path or a number such as ``well-known``, ``u/name`` or ``1,000``."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    torn = bool(before) and (before[-1] in _GLUE or (before[-1] in ".," and before[0].isdigit()))
    return torn or (len(after) == 2 and (after[0] in _GLUE + ".," and after[1].isalnum()))


def tears_word(text: str, span: str) -> bool:
    """Whether ``span`` stands nowhere in ``text`` between whole words; the ``'s`` of a word may stay out."""
    before = r"(?<!\w)(?<!\w['’])" if re.match(r"\w", span) else ""
    after = r"(?!\w|['’](?!s\b)\w)" if re.search(r"\w$", span) else ""
    return not re.search(before + re.escape(span) + after, text)


def says_nothing(span: str) -> bool:
    """Whether ``span`` is punctuation, masks, or one small word that no capital lends weight, such as ``you``."""
    words, lists = words_of(span), word_lists()
    if all(w.is_mask for w in words):
        return span.isascii()  # an emoji says something
    small = lists.stop & (lists.dangling | lists.hanging | lists.persons)
    return len(words) == 1 and span.islower() and words[0].form in small


def only_masks(text: str) -> bool:
    """Whether ``text`` has no word but masks."""
    return not _WORD.search(_MASK.sub(" ", text))


def central_span(text: str, limit: int, around: int | None = None) -> tuple[int, int] | None:
    """The stretch of at most ``limit`` words with most that is not a stop word, or None where nothing can be quoted.

    Args:
        around: a place in the text that the span must hold.
    """
    words = words_of(text)
    best, found = 0, None
    for first in range(len(words)):
        for last in range(first, min(len(words), first + MAX_WORDS)):
            window = words[first : last + 1]
            start, end = window[0].start, window[-1].end
            if around is not None and not start <= around < end:
                continue
            if count_words(text[start:end]) > limit or not (rounded(window) and quotable(text, window)):
                continue
            if first and words[first - 1].form in word_lists().negations:  # "like it" says nothing of "don't like it"
                continue
            content = sum(w.form not in word_lists().stop and not w.is_mask for w in window)
            value = 3 * content - len(window) - 2 * sum(w.is_mask for w in window)
            if value > best:
                best, found = value, (start, end)
    return found


def quoted_words(text: str, spans: Sequence[str]) -> NDArray[np.bool_]:
    """Which words of ``text``, as white space separates them, the first occurrence of each span touches."""
    places = [(text.index(span), text.index(span) + len(span)) for span in spans]
    words = re.finditer(r"\S+", text)
    return np.array([any(w.start() < end and start < w.end() for start, end in places) for w in words], dtype=bool)


def kept_words(text: str, mask: NDArray[np.bool_]) -> str:
    """The words of ``text`` under the mask, one space between each."""
    return " ".join(word for word, kept in zip(re.findall(r"\S+", text), mask, strict=True) if kept)
