"""The full GBNF sampler of llama.cpp, to hold the engine against: the same answers another way, many times slower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.text_grammar import text_gbnf
from toolkit.errors import ModelError
from toolkit.inference.native import NativeGrammar, NativeModel
from toolkit.inference.reasoning import ReasoningWriter


class FullGrammar:
    """llama.cpp's grammar sampler on the answer to one text.

    Args:
        known: the tokens that the answer begins with.
    """

    def __init__(self, model: NativeModel, lens: Lens, text: str, known: Sequence[int] = ()) -> None:
        self._sampler = NativeGrammar(model, text_gbnf(lens, text))
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
        allowed = self._sampler.apply(logits)
        token = int(allowed.argmax())
        if allowed[token] == -np.inf:
            return -1
        if not writer.accept(token, pieces[token]):
            raise ModelError(
                f"The grammar allows {pieces[token]!r} after {writer.written!r}, which the engine refuses.",
                "Report this with the text that was read.",
            )
        if not writer.done:
            self._sampler.accept(token)
        return token

    def allowed(self, n_vocab: int) -> np.ndarray:
        """Which tokens may stand next, shape (n_vocab,)."""
        return np.asarray(self._sampler.apply(np.zeros(n_vocab, np.float32)) == 0)
