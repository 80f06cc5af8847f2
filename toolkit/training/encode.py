"""Examples as token sequences with the positions at which the two objectives look."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, frame_for, load_prompt, prepare_text
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import LabelTrie, build_trie


class HFTokenizer:
    """A Hugging Face tokenizer as the contract wants it: text never yields control tokens."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self._vocabulary = backend.get_vocab()

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without BOS or EOS; control tokens are recognised only with ``control``."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False, split_special_tokens=not control)
        return ids

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None."""
        found = self._vocabulary.get(token)
        return None if found is None else int(found)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example after the shared head.

    Attributes:
        tokens: text, tail, then as much of the answer as the objectives need.
        lens: whose head stands before it.
        answer: position of the token before the first answer token (the end of the tail).
        label_at: position whose next token is the first label token.
        target: share of each label, shape (n_labels,), summing to 1.
        branches: (position, branch index) pairs beyond the root on this example's label path.
        chain: whether the whole JSON follows, for the full-vocabulary objective.
        weight: the example's weight.
    """

    tokens: tuple[int, ...]
    lens: Lens
    answer: int
    label_at: int
    target: np.ndarray
    branches: tuple[tuple[int, int], ...]
    chain: bool
    weight: float

    @property
    def answer_tokens(self) -> int:
        """How many tokens the full-vocabulary objective learns: those of an answer with reasoning, else none."""
        return len(self.tokens) - 1 - self.answer if self.chain else 0


# The answer with its keys in the other order, {"reasoning": "...", "emotion": "..."}; its joints end as prefill does.
REASONING_PREFILL, EMOTION_BRIDGE = '{"reasoning": "', '", "emotion": "'


class Encoder:
    """Turns examples into :class:`Encoded` with one tokenizer; text is cut to ``max_tokens``.

    With ``reasoning_first`` the reasoning of those that have one stands before the label.
    """

    def __init__(self, tokenizer: HFTokenizer, max_tokens: int, reasoning_first: bool = False) -> None:
        self.tokenizer, self.max_tokens, self.reasoning_first = tokenizer, max_tokens, reasoning_first
        self.frames: dict[Lens, Frame] = {lens: frame_for(tokenizer, lens) for lens in Lens}
        self.tries: dict[Lens, LabelTrie] = {
            lens: build_trie(tokenizer, load_taxonomy(lens.native).labels) for lens in Lens
        }
        self._close = load_prompt().close

    def __call__(self, example: Example) -> Encoded:
        frame, trie = self.frames[example.lens], self.tries[example.lens]
        shares = example.target()
        target = np.array([shares.get(label, 0.0) for label in trie.labels], np.float32)
        asked = self.ask(example.text, example.lens)
        argued_first = self.reasoning_first and bool(example.reasoning)
        tokens = [*asked, *(self.argue(example.reasoning or "") if argued_first else frame.prefill)]
        answer, label_at = len(asked) - 1, len(tokens) - 1
        lead = trie.labels.index(example.labels[0]) if example.reasoning else int(target.argmax())
        branches = tuple(
            (label_at + len(b.path), index)
            for index, b in enumerate(trie.branches)
            if b.path and trie.paths[lead][: len(b.path)] == b.path
        )
        if argued_first:
            tokens += [*trie.paths[lead], *self.tokenizer.encode(self._close), frame.eos]
        elif example.reasoning:
            tokens += [*trie.paths[lead], *frame.bridge]
            tokens += [*self.tokenizer.encode(example.reasoning + self._close), frame.eos]
        elif branches:
            tokens += trie.paths[lead][: branches[-1][0] - label_at]
        return Encoded(
            tuple(tokens), example.lens, answer, label_at, target, branches, bool(example.reasoning), example.weight
        )

    def ask(self, text: str, lens: Lens) -> list[int]:
        """What stands between the shared head and the answer: the text and the tail."""
        return [*self.tokenizer.encode(prepare_text(text))[: self.max_tokens], *self.frames[lens].tail]

    def argue(self, reasoning: str) -> list[int]:
        """The start of an answer that reasons first, up to the label."""
        return self.tokenizer.encode(REASONING_PREFILL) + self.tokenizer.encode(reasoning + EMOTION_BRIDGE)


class Row(Protocol):
    """What batches are made of."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The row's tokens."""
        ...

    @property
    def lens(self) -> Lens:
        """The lens it is seen through."""
        ...


R = TypeVar("R", bound=Row)


def bucketed_batches(rows: Sequence[R], size: int, seed: int) -> list[list[R]]:
    """One epoch of batches of like length: shuffled, sorted within windows of 50 batches, batches shuffled again.

    A batch holds one lens, as it shares one head. The same seed gives the same batches.
    """
    chance = random.Random(seed)
    batches: list[list[R]] = []
    for lens in Lens:
        pool = [row for row in rows if row.lens is lens]
        chance.shuffle(pool)
        for start in range(0, len(pool), 50 * size):
            window = sorted(pool[start : start + 50 * size], key=lambda row: len(row.tokens))
            batches += [window[i : i + size] for i in range(0, len(window), size)]
    chance.shuffle(batches)
    return batches


def split_by_tokens(rows: list[R], limit: int) -> list[list[R]]:
    """Parts of a batch, sorted by length, that take at most ``limit`` padded tokens each (or one row)."""
    parts: list[list[R]] = []
    for row in sorted(rows, key=lambda row: len(row.tokens)):
        if parts and len(row.tokens) * (len(parts[-1]) + 1) <= limit:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def epochs_of(make: Callable[[int], list[list[R]]]) -> Iterator[list[R]]:
    """Batches without end; ``make(epoch)`` gives those of one epoch."""
    epoch = 0
    while True:
        yield from make(epoch)
        epoch += 1
