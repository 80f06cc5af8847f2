"""Words of a text with their places, and the spans of words that can be quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.contract.answer import count_words
from toolkit.contract.prompt import load_prompt

MAX_WORDS = 4
_WORD = re.compile(r"\[[A-Za-z]+\]|\w+(?:['’]\w+)*")
_MASK = re.compile(r"\[[A-Za-z]+\]")
_GLUE = "-/@_'’"
_FORBIDDEN = re.compile(r'["“”\\\x00-\x1f\x7f\u2028\u2029\u0085\u200b-\u200f\u202a-\u202e]')

# Words that say nothing on their own; a span of nothing else is never quoted.
STOP_WORDS = frozenset(
    """a an and are as at be been being but by for from had has have he her hers him his i i'm i've i'd i'll if in into
    is it it's its me mine my of on or our ours she so some than that that's the their them then there there's these
    they they're this those to too us very was we we're were what when where which who whom will with would you you're
    your yours am do does did just im ive youre thats theres also about up down out over again because while can could
    should may might must really even still only much many more most such same own other any all both each few how why
    got get gets getting go goes going went one two lot u ur r s t m re ll ve d don didn isn doesn hey well oh yes
    not no never don't dont can't cant won't isn't didn't doesn't wasn't aren't hadn't hasn't haven't wouldn't couldn't
    think know say said says make makes made thing things way see look looks people guy man anyone someone something
    anything everything nothing everyone""".split()
)
# A span must not end in one of these, or it breaks off in the middle of a phrase.
_DANGLING = frozenset(
    """a an and are as at be been but by for from had has have i i'm i've i'd i'll if in into is it's my of on or our
    she he so than that that's the their they they're this those to very was we we're were what when where which who will
    with would your you're am does did because while can could should may might must such each how why he its about
    these not don't dont didn't isn't doesn't wasn't just really too absolutely no some any there's there every like
    it""".split()
)
# A span must not begin with one of these, unless the word belongs to what follows.
_HANGING = frozenset("and or but of to that than as at by for from is are was were be it's in on with if".split())


_TAKES_YOU = frozenset(
    """thank love hate fuck miss for to of with on about bless wish like adore screw hope from at and than around
    appreciate told tell help hear see get envy salute support believe""".split()
)


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
        and any(w.form not in STOP_WORDS and not w.is_mask for w in words)
        and all(adjoining(text, a, b) for a, b in zip(words, words[1:], strict=False))
        and not _cuts_word(text, words[0].start, words[-1].end)
        and len(span) <= 60
    )


def rounded(words: Sequence[Word]) -> bool:
    """Whether the span begins and ends where a phrase may."""
    if words[-1].form == "you" and (len(words) == 1 or words[-2].form not in _TAKES_YOU):
        return False
    return words[-1].form not in _DANGLING and words[0].form not in _HANGING


def _cuts_word(text: str, start: int, end: int) -> bool:
    """Whether the span would tear a compound, a path or a number such as ``well-known``, ``u/name`` or ``1,000``."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    torn = bool(before) and (before[-1] in _GLUE or (before[-1] in ".," and before[0].isdigit()))
    return torn or (len(after) == 2 and (after[0] in _GLUE + ".," and after[1].isalnum()))


def only_masks(text: str) -> bool:
    """Whether ``text`` has no word but masks."""
    return not _WORD.search(_MASK.sub(" ", text))


def central_span(text: str, limit: int) -> tuple[int, int] | None:
    """The stretch of at most ``limit`` words with most that is not a stop word, or None where nothing can be quoted."""
    words = words_of(text)
    best, found = 0, None
    for first in range(len(words)):
        for last in range(first, min(len(words), first + MAX_WORDS)):
            window = words[first : last + 1]
            start, end = window[0].start, window[-1].end
            if count_words(text[start:end]) > limit or not (rounded(window) and quotable(text, window)):
                continue
            content = sum(w.form not in STOP_WORDS and not w.is_mask for w in window)
            value = 3 * content - len(window) - 2 * sum(w.is_mask for w in window)
            if value > best:
                best, found = value, (start, end)
    return found
