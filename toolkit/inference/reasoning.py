"""What may be written next inside the reasoning: the grammar, and quotes copied from the text."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from toolkit.contract.answer import count_words
from toolkit.contract.prompt import load_prompt

_FORBIDDEN = re.compile(r'["\\\x00-\x1f\x7f]')
_SENTENCE_END = re.compile(r"[.!?…](?=[^.!?…“”]*$)")


class ReasoningWriter:
    """Checks tokens one at a time and collects the reasoning of one text.

    A token is refused where it would break the JSON string (a quotation mark that does not end it, a backslash, a
    control character, bytes that are no UTF-8), where the reasoning does not begin with a capital letter, and where
    a quote leaves the words of the text or takes more of them than the contract allows.
    """

    def __init__(self, text: str) -> None:
        spec = load_prompt()
        self._spec, self._text = spec, text.encode("utf-8", "replace").decode()
        self._text_bytes = self._text.encode()
        self._words_left = int(spec.max_quoted_share * count_words(text))
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._quote: str | None = None
        self.written = ""
        self.tokens: list[int] = []
        self._fours: Counter[tuple[int, ...]] = Counter()
        self.done = False

    def accept(self, token: int, piece: bytes) -> bool:
        """Take the token if it may stand here; says whether it did."""
        if self.done:
            return False
        state = self._decoder.getstate()
        try:
            added = self._decoder.decode(piece)
        except UnicodeDecodeError:
            self._decoder.setstate(state)
            return False
        body, mark, rest = added.partition('"')
        after = self._follow(body)
        begun = self._decoder.getstate()[0]  # the first bytes of a character that the next token has to complete
        ends = mark and self.written + body and not begun and after and after[0] is None
        no_capital = begun and not self.written and not body  # capitals are single bytes
        wrong_end = mark and not (ends and rest in ("", "}"))
        if not piece or after is None or no_capital or wrong_end or self._dead_end(after[0], begun):
            self._decoder.setstate(state)
            return False
        self._quote, self._words_left = after
        self.written += body
        self.tokens.append(token)
        self._fours[tuple(self.tokens[-4:])] += 1
        self.done = bool(mark)
        return True

    def _follow(self, added: str) -> tuple[str | None, int] | None:
        """Quote state and words left after ``added``, or None where it may not follow."""
        if _FORBIDDEN.search(added) or (added and not self.written and not "A" <= added[0] <= "Z"):
            return None
        quote, left = self._quote, self._words_left
        for character in added:
            if character == self._spec.open_quote:
                if quote is not None or left < 1:
                    return None
                quote = ""
            elif character == self._spec.close_quote:
                if not quote or not self._stands_in_text(quote):
                    return None
                left -= count_words(quote)
                quote = None
            elif quote is not None:
                quote += character
                if not self._may_grow(quote, left):
                    return None
        return quote, left

    def _may_grow(self, quote: str, left: int) -> bool:
        """Whether words of the text start like this and within the share that is left.

        White space counts with the word after it: a quote that ended in it, or began with it, could not be closed.
        """
        words = count_words(quote) + quote[-1].isspace()
        return (
            words <= left
            and not quote[0].isspace()
            and any(not self._cuts_before(start) for start in self._places(quote))
        )

    def _dead_end(self, quote: str | None, begun: bytes) -> bool:
        """Whether no character that starts with the bytes ``begun`` can go on the open quote or close it."""
        if quote is None or not begun:
            return False
        closing = self._spec.close_quote.encode().startswith(begun) and bool(quote) and self._stands_in_text(quote)
        return not closing and quote.encode() + begun not in self._text_bytes

    def _stands_in_text(self, quote: str) -> bool:
        """Whether the quote is whole words of the text."""
        if quote.strip() != quote:
            return False
        places = self._places(quote)
        return any(not self._cuts_before(start) and not self._cuts_before(start + len(quote)) for start in places)

    def _places(self, quote: str) -> Iterator[int]:
        """Every position at which the text reads like ``quote``."""
        start = self._text.find(quote)
        while start >= 0:
            yield start
            start = self._text.find(quote, start + 1)

    def _cuts_before(self, position: int) -> bool:
        """Whether a word of the text goes on across ``position``."""
        return self._text[position - 1 : position].isalnum() and self._text[position : position + 1].isalnum()

    def exhausted(self) -> bool:
        """Whether a bound is reached: tokens, characters, or the same four tokens for the third time."""
        return (
            len(self.tokens) >= self._spec.max_tokens
            or len(self.written) >= self._spec.max_characters - 24
            or self._fours[tuple(self.tokens[-4:])] >= 3
        )

    def finish(self) -> str:
        """The reasoning; one that ran into a bound is cut after its last whole sentence, or else closed as it is."""
        if self.done:
            return self.written.strip()
        end = _SENTENCE_END.search(self.written)
        kept = self.written[: end.end()] if end else self.written
        if kept.count(self._spec.open_quote) > kept.count(self._spec.close_quote):
            kept = kept[: kept.rindex(self._spec.open_quote)]
        kept = kept.strip(" ,;:")[: self._spec.max_characters - 1]
        return kept if kept.endswith((".", "!", "?", "…")) else f"{kept}."


def next_token(writer: ReasoningWriter, logits: np.ndarray, pieces: list[bytes]) -> int:
    """The most probable token that ``writer`` accepts.

    The best token is tried first; only if it is refused are others walked in order of their logits, first a few
    hundred, then all.
    """
    best = int(logits.argmax())
    if writer.accept(best, pieces[best]):
        return best
    for width in (256, len(logits)):
        few = np.argpartition(logits, -width)[-width:] if width < len(logits) else np.arange(len(logits))
        for token in few[np.argsort(-logits[few], kind="stable")]:
            if writer.accept(int(token), pieces[token]):
                return int(token)
    return -1
