"""The full GBNF sampler of llama.cpp, to hold the engine against: the same answers another way, many times slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt, prepare_text
from toolkit.contract.text_grammar import text_gbnf
from toolkit.errors import ModelError
from toolkit.inference.native import NativeGrammar, NativeModel
from toolkit.inference.reasoning import ReasoningWriter

if TYPE_CHECKING:
    from toolkit.inference.engine import Engine


class FullGrammar:
    """llama.cpp's grammar sampler on the answer to one text.

    Args:
        known: the tokens that the answer begins with.
    """

    def __init__(self, model: NativeModel, lens: Lens, text: str, known: Sequence[int] = ()) -> None:
        self._sampler = NativeGrammar(model, text_gbnf(lens, text))
        # For llama.cpp control tokens are text, for us they are none.
        self._silent = np.array([not piece for piece in model.pieces])
        for token in known:
            self._sampler.accept(token)

    def close(self) -> None:
        """Free the sampler."""
        self._sampler.close()

    def next_token(self, writer: ReasoningWriter, logits: np.ndarray, pieces: Sequence[bytes]) -> int:
        """The most probable token that the grammar allows, which ``writer`` takes; -1 where it allows none.

        Raises:
            ModelError: where ``writer`` refuses it, so that grammar and code contradict each other.
        """
        token = self.likeliest(logits)
        if token < 0:
            return -1
        if not writer.accept(token, pieces[token]):
            raise ModelError(
                f"The grammar allows {pieces[token]!r} after {writer.written!r}, which the engine refuses.",
                "Report this with the text that was read.",
            )
        if not writer.done:
            self.accept(token)
        return token

    def likeliest(self, logits: np.ndarray) -> int:
        """The most probable token that the grammar allows; -1 where it allows none."""
        allowed = np.where(self._silent, -np.inf, self._sampler.apply(logits))
        token = int(allowed.argmax())
        return token if allowed[token] > -np.inf else -1

    def allowed(self, n_vocab: int) -> np.ndarray:
        """Which tokens may stand next, shape (n_vocab,)."""
        return np.asarray((self._sampler.apply(np.zeros(n_vocab, np.float32)) == 0) & ~self._silent)

    def accept(self, token: int) -> None:
        """Go on behind an allowed token; any other one ends the process."""
        self._sampler.accept(token)


def answer_by_grammar(engine: Engine, text: str, lens: Lens) -> str:
    """The JSON that the grammar sampler alone writes behind the prompt, greedily and token by token.

    Raises:
        ModelError: where it comes to no end.
    """
    model, frame, context = engine.model, engine.frames[lens], engine.context
    sequence = context.n_sequences - 1  # between two readings only the heads are in it, which are the first ones
    grammar = FullGrammar(model, lens, prepare_text(text))
    pending, position, written = [*frame.head, *model.encode(prepare_text(text)), *frame.tail], 0, b""
    try:
        while not written.endswith(load_prompt().close.encode()):
            row = context.add(pending, position, [sequence], want_logits=True)
            position += len(pending)
            context.decode()
            token = grammar.likeliest(context.logits(row))
            if token < 0 or position >= context.n_batch:
                raise ModelError("The grammar sampler comes to no end.", "Report this with the text that was read.")
            grammar.accept(token)
            written += model.pieces[token]
            pending = [token]
    finally:
        grammar.close()
        context.discard()
        context.drop(sequence)
    return written.decode()
