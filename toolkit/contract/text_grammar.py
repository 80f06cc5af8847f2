"""The GBNF grammar of the answers to one text: the exported grammar, and quotes that are whole words of the text.

The engine never samples with it. It says in another language what :class:`toolkit.inference.reasoning.ReasoningWriter`
says in code, so that llama.cpp's own grammar sampler can be set against the engine.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from toolkit.contract.answer import count_words, literal
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt
from toolkit.contract.taxonomy import load_taxonomy


def text_gbnf(lens: Lens, text: str) -> str:
    """The grammar of every answer to ``text`` that keeps the contract, bounds of length apart.

    Its size grows with the square of the text's words: it is meant for texts of a few sentences.
    """
    spec = load_prompt()
    labels = " | ".join(literal(label) for label in load_taxonomy(lens.native).labels)
    words = int(spec.max_quoted_share * count_words(text))
    lines = [
        f"root ::= {literal(spec.prefill)} emotion {literal(spec.bridge)} [A-Z] free-{words}",
        f"emotion ::= {labels}",
        f'char ::= [^"\\\\\\x00-\\x1F\\x7F{spec.open_quote}{spec.close_quote}]',
        *_Quotes(text).rules(words),
    ]
    return "\n".join(lines) + "\n"


class _Quotes:
    """Quotes as paths through a text, which begin and end only where no word is cut.

    ``free-W`` is what may follow outside a quote while W more words may be quoted, ``open-W`` what may follow its
    opening mark, and ``at-P-W`` what may follow inside a quote that has come to position P of the text.
    """

    def __init__(self, text: str) -> None:
        spec = load_prompt()
        self._text, self._open, self._close = text, literal(spec.open_quote), literal(spec.close_quote)
        self._usable = re.compile(rf'[^"\\\x00-\x1f\x7f{spec.open_quote}{spec.close_quote}]+')
        cuts = (one.isalnum() and other.isalnum() for one, other in itertools.pairwise(text))
        stops = [0, *(i for i, cut in enumerate(cuts, 1) if not cut), len(text)]
        self._next = {at: stop for at, stop in itertools.pairwise(stops) if self._usable.fullmatch(text[at:stop])}

    def rules(self, words: int) -> Iterator[str]:
        """The rules for up to ``words`` quoted words."""
        starts = [at for at in self._next if not self._text[at].isspace()]
        end = literal(load_prompt().close)
        for left in range(words + 1):
            quote = f"{self._open} open-{left} | " if left and starts else ""
            yield f"free-{left} ::= char* ( {quote}{end} )"
            if quote:
                yield f"open-{left} ::= " + " | ".join(self._step(at, left - 1) for at in starts)
        for at, left in itertools.product(self._next.values(), range(words)):
            if ways := self._ways(at, left):
                yield f"at-{at}-{left} ::= {' | '.join(ways)}"

    def _step(self, at: int, left: int) -> str:
        return f"{literal(self._text[at : self._next[at]])} at-{self._next[at]}-{left}"

    def _ways(self, at: int, left: int) -> list[str]:
        """How a quote may go on from ``at`` with ``left`` words more: by its closing mark, or by more of the text."""
        ended = not self._text[at - 1].isspace()  # so a quote may end here, and what follows belongs to the same word
        ways = [f"{self._close} free-{left}"] if ended else []
        if at in self._next:
            blank = self._text[at].isspace()
            after = left if blank or ended else left - 1
            enough = left > 0 if blank or not ended else True  # white space needs a word after it
            if enough and (not blank or self._ways(self._next[at], after)):
                ways.append(self._step(at, after))
        return ways
