"""Prompts: texts cut into windows, windows packed into forward passes, and the exact posterior of each.

The head of the prompt is evaluated once per lens and forked to every window. Where a label takes several tokens, its
branching points ride in the same pass as further sequences that share the text, so that one forward pass gives the
exact posterior.

A pass holds whole windows, or a single long one. Every sum that leads to a window's posterior has the same terms in the
same order whatever else is in the pass: nothing depends on the neighbours. Where llama.cpp attends by itself, passes
stay below ``TILED`` rows, from which on it works in tiles that cut a text wherever it happens to lie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, prepare_text
from toolkit.contract.trie import LabelTrie
from toolkit.inference.native import NativeContext, NativeModel, State
from toolkit.inference.posterior import pool_windows, trie_posterior

ROWS, TILED = 256, 64  # of a pass of several windows; from which on llama.cpp's own attention works in tiles
GAP = 64  # rows at the end of a pass that are given to what fits best
AHEAD = 189  # rows beyond a full pass among which windows are sought that fill one well
LONGEST, SEQUENCES = 512, 64  # rows of a pass that holds one long window; sequence ids
CELLS = 768  # the longest window, the heads, and what llama.cpp rounds up to


@dataclass(frozen=True, slots=True)
class Reading:
    """What one forward pass says: ``posterior`` (native labels,) summing to 1, and ``coverage``, 0 to 1."""

    posterior: np.ndarray
    coverage: float


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text that one sequence takes; ``last`` says whether it ends its text.

    Attributes:
        text: what may be quoted of it, without a word that is cut at either end.
        chosen: what all windows of its text say together, and the label that is argued for.
    """

    tokens: list[int]
    text: str
    last: bool = True
    chosen: tuple[Reading, int] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A window that was read.

    Attributes:
        state: keys and values of its tokens, to be taken up by another context; empty unless asked for.
        length: of the prompt in tokens, with its head.
    """

    window: Window
    reading: Reading
    state: State
    length: int


class Heads:
    """The head of the prompt, evaluated once per lens as a sequence of its own and shared by all that begin with it."""

    def __init__(self, context: NativeContext, frames: Mapping[Lens, Frame]) -> None:
        self._context, self._frames = context, frames
        self._sequences = {lens: number for number, lens in enumerate(Lens)}
        self._known: set[Lens] = set()

    def evaluate(self, lens: Lens) -> None:
        """One forward pass where the head of ``lens`` is not there yet; the batch has to be empty."""
        if lens not in self._known:
            self._context.add(self._frames[lens].head, 0, [self._sequences[lens]])
            self._context.decode()
            self._known.add(lens)

    def fork(self, lens: Lens, sequence: int) -> None:
        """Let ``sequence`` begin with the head of ``lens``."""
        self._context.fork(self._sequences[lens], sequence)

    def forget(self) -> None:
        """Evaluate the heads anew: the weights have changed."""
        for sequence in self._sequences.values():
            self._context.drop(sequence)
        self._known.clear()


class PromptReader:
    """Evaluates prompts in a context of its own. Between two passes nothing is left in it but the heads.

    Args:
        window_tokens: the most tokens of a text that one window may hold.
        rows: the most tokens of a pass of several windows.
        exact: whether no window may depend on its neighbours; else a pass is as large as it can be.
    """

    def __init__(
        self,
        model: NativeModel,
        context: NativeContext,
        frames: Mapping[Lens, Frame],
        tries: Mapping[Lens, LabelTrie],
        window_tokens: int,
        rows: int = ROWS,
        exact: bool = True,
    ) -> None:
        self._model, self._frames, self._tries = model, frames, tries
        self.context, self.window_tokens, self._rows, self._exact = context, window_tokens, rows, exact
        self.heads = Heads(context, frames)
        self._free = deque(range(len(Lens), context.n_sequences))

    @property
    def rows(self) -> int:
        """The tokens that the next pass of several windows may take."""
        return self._rows if self.context.row_by_row or not self._exact else min(self._rows, TILED - 1)

    def split(self, text: str) -> list[Window]:
        """The text whole, or in windows that overlap by an eighth."""
        text = prepare_text(text)
        tokens, size = self._model.encode(text), self.window_tokens
        if len(tokens) <= size:
            return [Window(tokens, text)]
        overlap = size // 8
        found = []
        for start in range(0, len(tokens) - overlap, size - overlap):
            part = tokens[start : start + size]
            found.append(Window(part, self._whole_words(tokens, start, start + size), start + size >= len(tokens)))
        return found

    def _whole_words(self, tokens: list[int], start: int, end: int) -> str:
        """The text of some tokens, without the parts of words that go on before or behind them."""
        text, before, after = map(self._model.decode, (tokens[start:end], tokens[:start][-8:], tokens[end : end + 8]))
        first, last = 0, len(text)
        if before[-1:].isalnum():
            first = next((i for i, character in enumerate(text) if not character.isalnum()), last)
        if after[:1].isalnum():
            last = next((i for i in range(last, first, -1) if not text[i - 1].isalnum()), first)
        return text[first:last]

    def passes(self, windows: Iterable[Window | None], lens: Lens, keep: bool = False) -> Iterator[list[Prompt]]:
        """Read the windows and hand them out in order, a list for each pass; a window may overtake a few others where
        it fits into a pass and they do not. A None among them says that none is there at the moment: a pass of those
        that wait goes off although it may not be full, and where none waits an empty list comes.

        Args:
            keep: hand out keys and values too.
        """
        waiting: dict[int, Window] = {}
        finished: dict[int, Prompt] = {}
        rows = count = due = 0

        def one() -> list[Prompt]:
            nonlocal rows, due
            pack = self._pack(waiting, lens)
            rows -= sum(self._rows_of(packed, lens) for packed in pack.values())
            finished.update(zip(pack, self._evaluate(list(pack.values()), lens, keep), strict=True))
            ready = []
            while due in finished:
                ready.append(finished.pop(due))
                due += 1
            return ready

        for window in windows:
            if window is not None:
                self.heads.evaluate(lens)  # which also tells how many rows the first pass may take
                waiting[count] = window
                rows, count = rows + self._rows_of(window, lens), count + 1
                while rows >= self.rows + AHEAD:
                    yield one()
            else:
                yield one() if waiting else []
        while waiting:
            yield one()

    def _pack(self, waiting: dict[int, Window], lens: Lens) -> dict[int, Window]:
        """Take the oldest windows, whose callers wait for them, and at last again and again the longest that fits."""
        room, most = self.rows, len(self._free) // len(self._tries[lens].branches)
        need = {number: self._rows_of(window, lens) for number, window in waiting.items()}
        pack: dict[int, Window] = {}
        best = next(iter(need), None)
        while best is not None and len(pack) < most:
            pack[best] = waiting.pop(best)
            room -= need.pop(best)
            fitting = (number for number in need if need[number] <= room)
            best = next(fitting, None) if room > GAP else max(fitting, key=need.__getitem__, default=None)
        return pack

    def _evaluate(self, pack: list[Window], lens: Lens, keep: bool) -> list[Prompt]:
        """One forward pass."""
        if not pack:
            return []
        branches = len(self._tries[lens].branches)
        taken = [[self._free.popleft() for _ in range(branches)] for _ in pack]
        try:
            for window, ids in zip(pack, taken, strict=True):
                self._add(window, ids, lens)
            self.context.decode()
            logits = self.context.outputs().reshape(len(pack), branches, -1)
            return [self._prompt(*each, lens, keep) for each in zip(pack, taken, logits, strict=True)]
        finally:
            self.context.discard()
            for ids in taken:
                self._release(ids)

    def _prompt(self, window: Window, ids: list[int], logits: np.ndarray, lens: Lens, keep: bool) -> Prompt:
        frame = self._frames[lens]
        reading = Reading(*trie_posterior(self._tries[lens], dict(enumerate(logits))))
        state = self.context.save(ids[0]) if keep else []
        return Prompt(
            window, reading, state, len(frame.head) + len(window.tokens) + len(frame.tail) + len(frame.prefill)
        )

    def _add(self, window: Window, ids: list[int], lens: Lens) -> None:
        """Put text, tail and prefill into the batch for all ``ids`` at once, and each label branch for its own id."""
        frame, branches = self._frames[lens], self._tries[lens].branches
        for sequence in ids:
            self.heads.fork(lens, sequence)
        known = [*window.tokens, *frame.tail, *frame.prefill]
        position = len(frame.head)
        self.context.add(known, position, ids, want_logits=True)
        for branch, sequence in zip(branches[1:], ids[1:], strict=True):
            self.context.add(branch.path, position + len(known), [sequence], want_logits=True)

    def _release(self, ids: list[int]) -> None:
        for sequence in ids:
            self.context.drop(sequence)
            self._free.append(sequence)

    def _rows_of(self, window: Window, lens: Lens) -> int:
        frame, branches = self._frames[lens], self._tries[lens].branches
        fixed = len(frame.tail) + len(frame.prefill) + sum(len(branch.path) for branch in branches)
        return len(window.tokens) + fixed


def pool(prompts: Sequence[Prompt]) -> Reading:
    """What the windows of one text say together, weighted by their tokens."""
    if len(prompts) == 1:
        return prompts[0].reading
    lengths = np.array([len(prompt.window.tokens) for prompt in prompts], np.float64)
    posterior = pool_windows(np.stack([prompt.reading.posterior for prompt in prompts]), lengths)
    coverage = float(np.average([prompt.reading.coverage for prompt in prompts], weights=lengths))
    return Reading(posterior, coverage)
