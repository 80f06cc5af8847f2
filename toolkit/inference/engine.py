"""Many texts at a time through one shared prompt: exact label posteriors, then constrained reasoning.

The head of the prompt is evaluated once per lens and forked to every sequence. Texts are packed into full batches;
where a label takes several tokens, its branching points ride in the same batch as further sequences that share the
text, so that one forward pass gives the exact posterior. The rest of the label and the JSON that is already known are
forced, and only the reasoning is sampled, for many sequences together; a sequence that ends makes room for the next
at once.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, check_boundaries, frame_for, load_prompt, prepare_text
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import LabelTrie, build_trie
from toolkit.inference.native import NativeAdapter, NativeContext, NativeModel
from toolkit.inference.posterior import pool_windows, trie_posterior
from toolkit.inference.reasoning import ReasoningWriter, next_token
from toolkit.inference.tuning import Tuning, available_threads, find_tuning, free_threads

# The measured optimum on two cores: more sequences attend over each other's cells and lose again.
ACTIVE, BATCH, SEQUENCES, CELLS = 32, 512, 192, 4096
TILE = 64  # rows from which llama.cpp's attention works in tiles
REFILL = 8  # places that have to be free before newcomers join: their prompts are cheaper together
_HEADS = {Lens.AUTHOR: 0, Lens.READER: 1}

__all__ = ["ACTIVE", "BATCH", "Choose", "Engine", "Explained", "Reading", "available_threads"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one forward pass says: ``posterior`` (native labels,) summing to 1, and ``coverage``, 0 to 1."""

    posterior: np.ndarray
    coverage: float


@dataclass(frozen=True, slots=True)
class Explained:
    """A reading with the native label that was argued for and the reasoning."""

    reading: Reading
    label: int
    reasoning: str


Choose = Callable[[np.ndarray], int]


@dataclass(slots=True)
class _Window:
    """A piece of a text that one sequence takes, with the text it came from."""

    index: int
    tokens: list[int]
    text: str
    last: bool = True
    label: int | None = None
    reading: Reading | None = None


@dataclass(slots=True)
class _Slot:
    """One active sequence of the explain mode."""

    window: _Window
    ids: list[int]
    position: int
    pending: list[int]
    writer: ReasoningWriter
    cells: int
    rows: dict[int, int] = field(default_factory=dict)
    row: int = -1


class Engine:
    """A loaded GGUF that reads many texts. Not thread-safe: one caller at a time.

    Args:
        path: a GGUF whose vocabulary has one of the prompt's frames.
        threads: None takes what was measured to be best, but no more processors than are free.
        gpu_layers: layers that go to a GPU, 0 for none, -1 for all.
        context_window: the most tokens that one sequence may take, None for what the model's metadata says; a longer
            text is read in overlapping windows.
        lora: a GGUF-LoRA to add to the weights; see :meth:`swap`.
        tuning: None takes the one that ``bench --tune`` left for this machine and model, if there is one.
        exact: about half as fast, but with F32 weights no log-probability depends on what else is in the batch by more
            than .00001; other weights round what they are multiplied with, and gain nothing.

    Raises:
        ConvertError: for a damaged file.
        ModelError: for a model that does not load or whose tokenizer breaks the prompt, or another model's adapter.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        context_window: int | None = None,
        lora: Path | None = None,
        tuning: Tuning | None = None,
        exact: bool = False,
    ) -> None:
        self.model = NativeModel(path, gpu_layers)
        self.tuning = tuning or find_tuning(self.model.header.metadata) or Tuning(active=ACTIVE, batch=BATCH)
        free = free_threads()
        self.threads = threads or min(self.tuning.threads or free, free)
        single = threads or min(self.tuning.single_threads or self.threads, free)
        self.frames: dict[Lens, Frame] = {lens: frame_for(self.model, lens) for lens in Lens}
        self.tries: dict[Lens, LabelTrie] = {
            lens: build_trie(self.model, load_taxonomy(lens.native).labels) for lens in Lens
        }
        for trie in self.tries.values():
            check_boundaries(self.model, trie.labels)
        batch = self.tuning.batch
        self.context = NativeContext(self.model, CELLS + batch, batch, SEQUENCES, self.threads, single, exact)
        self._pieces: list[bytes] | None = None
        self._heads: set[Lens] = set()
        self._free = deque(range(len(_HEADS), SEQUENCES))
        window = context_window or int(self.model.header.metadata.get("emotion_lrm.context_window", BATCH))
        self._window_tokens = min(window, BATCH) - self._overhead()
        self._overlap = self._window_tokens // 8
        self.adapter: NativeAdapter | None = None
        if lora is not None:
            try:
                self.swap(lora)
            except BaseException:
                self.close()
                raise

    def swap(self, lora: Path | None) -> None:
        """Read on with another adapter, or with the bare model, without loading the weights again.

        Call it between two readings, not while one goes on. An adapter that is refused leaves the old one at work.

        Raises:
            ConvertError: for a damaged file.
            ModelError: for an adapter of another model.
        """
        adapter = NativeAdapter(self.model, lora) if lora is not None else None
        self.context.use_adapter(adapter)
        self.adapter = adapter
        for sequence in _HEADS.values():  # the shared heads were evaluated with the old weights
            self.context.drop(sequence)
        self._heads.clear()

    def close(self) -> None:
        """Free context and weights."""
        self.context.close()
        self.model.close()

    def read(self, texts: Iterable[str | None], lens: Lens) -> Iterator[Reading]:
        """The posterior and coverage of every text, in order; lazy, one full batch at a time.

        Args:
            texts: a None among them says that none is there at the moment, so a batch goes off that is not full.
        """
        collected: list[tuple[Reading, int]] = []
        nothing: list[_Window | None] = [None]
        windows = (window for pieces in self._pieces_of(texts) for window in pieces or nothing)
        for window, reading in self._read_windows(windows, lens):
            collected.append((reading, len(window.tokens)))
            if window.last:
                yield _pool(collected)
                collected = []

    def explain(self, texts: Iterable[str | None], lens: Lens, choose: Choose) -> Iterator[Explained]:
        """Reading, label and reasoning of every text, in order; lazy with a bounded look-ahead.

        Args:
            texts: a None among them says that none is there at the moment, so the sequences at work go on alone.
            choose: from a posterior the index of the native label to argue for.
        """
        waiting = self._pieces_of(texts)
        finished: dict[int, Explained] = {}
        active: list[_Slot] = []
        due = 0
        try:
            upcoming = next(waiting, None)
            while active or upcoming is not None:
                if upcoming and len(upcoming) > 1:
                    upcoming = [self._clearest(upcoming, lens, choose)]
                newcomers: list[_Slot] = []
                if not active or len(active) + REFILL <= self.tuning.active:
                    while upcoming and len(upcoming) == 1 and self._fits(active, upcoming[0], lens):
                        newcomers.append(self._admit(upcoming[0], lens))
                        active.append(newcomers[-1])
                        upcoming = next(waiting, None)
                self._begin(newcomers, active, lens, choose)
                self._step(active, finished)
                active = [slot for slot in active if slot.window.index not in finished]
                while due in finished:
                    yield finished.pop(due)
                    due += 1
                if upcoming == []:
                    upcoming = next(waiting, None)
        finally:
            self.context.discard()
            for slot in active:
                self._release(slot.ids)

    # Windows

    def _pieces_of(self, texts: Iterable[str | None]) -> Iterator[list[_Window]]:
        """The windows of each text; none for a None."""
        indices = itertools.count()
        for text in texts:
            yield [] if text is None else list(self._split(next(indices), prepare_text(text)))

    def _split(self, index: int, text: str) -> Iterator[_Window]:
        """The text whole, or in windows that overlap by an eighth."""
        tokens = self.model.encode(text)
        size, stride = self._window_tokens, self._window_tokens - self._overlap
        if len(tokens) <= size:
            yield _Window(index, tokens, text)
            return
        for start in range(0, len(tokens) - self._overlap, stride):
            part = tokens[start : start + size]
            last = start + size >= len(tokens)
            yield _Window(index, part, b"".join(self.pieces[t] for t in part).decode("utf-8", "ignore"), last)

    def _clearest(self, windows: list[_Window], lens: Lens, choose: Choose) -> _Window:
        """Of a text of several windows the one that speaks most clearly for the label that all together chose."""
        readings = [reading for _, reading in self._read_windows(iter(windows), lens)]
        pooled = _pool([(r, len(w.tokens)) for r, w in zip(readings, windows, strict=True)])
        label = choose(pooled.posterior)
        best = max(range(len(windows)), key=lambda i: float(readings[i].posterior[label]))
        windows[best].label, windows[best].reading = label, pooled
        return windows[best]

    # Fast: one forward pass a batch of windows

    def _read_windows(self, windows: Iterable[_Window | None], lens: Lens) -> Iterator[tuple[_Window, Reading]]:
        trie, extra = self.tries[lens], self._branch_tokens(lens)
        packed: list[tuple[_Window, list[int], dict[int, int]]] = []
        try:
            for window in windows:
                need = len(window.tokens) + self._suffix_length(lens) + extra if window else self.context.n_batch + 1
                if packed and (need > self.context.room or len(trie.branches) > len(self._free)):
                    ready, packed = packed, []
                    yield from self._read_batch(ready, trie)
                if window is None:
                    continue
                ids = [self._free.popleft() for _ in trie.branches]
                packed.append((window, ids, self._add_prompt(window.tokens, ids, lens)))
            ready, packed = packed, []
            yield from self._read_batch(ready, trie)
        finally:  # an input that fails half-way must not leave its neighbours' tokens behind
            self.context.discard()
            for _, ids, _ in packed:
                self._release(ids)

    def _read_batch(
        self, packed: list[tuple[_Window, list[int], dict[int, int]]], trie: LabelTrie
    ) -> list[tuple[_Window, Reading]]:
        self.context.decode()
        result = []
        for window, ids, rows in packed:
            result.append((window, self._reading(trie, rows)))
            self._release(ids)
        return result

    def _add_prompt(self, tokens: list[int], ids: list[int], lens: Lens) -> dict[int, int]:
        """Put text, tail and prefill into the batch for all ``ids`` at once, and each label branch for its own id.

        Returns the batch row at which each branch's logits will stand.
        """
        frame = self.frames[lens]
        self._evaluate_head(lens)
        for sequence in ids:
            self.context.fork(_HEADS[lens], sequence)
        position, row = len(frame.head), -1
        known = [*tokens, *frame.tail, *frame.prefill]
        for i, token in enumerate(known):
            row = self.context.add(token, position + i, ids, want_logits=i == len(known) - 1)
        rows = {0: row}
        for branch, sequence in zip(range(1, len(ids)), ids[1:], strict=True):
            path = self.tries[lens].branches[branch].path
            for i, token in enumerate(path):
                last = i == len(path) - 1
                rows[branch] = self.context.add(token, position + len(known) + i, [sequence], want_logits=last)
        return rows

    def _reading(self, trie: LabelTrie, rows: dict[int, int]) -> Reading:
        posterior, coverage = trie_posterior(trie, {b: self.context.logits(row) for b, row in rows.items()})
        return Reading(posterior, coverage)

    # Explain: continuous batching

    def _fits(self, active: list[_Slot], window: _Window, lens: Lens) -> bool:
        """Whether a window can join now: a free place, sequence ids, KV cells, and room in this step's batch."""
        need = len(window.tokens) + self._suffix_length(lens) + self._branch_tokens(lens)
        cells = sum(slot.cells for slot in active) + sum(len(f.head) for f in self.frames.values())
        return (
            len(active) < self.tuning.active
            and len(self._free) >= len(self.tries[lens].branches)
            and need <= self.context.room
            and cells + self._cells_for(window, lens) <= CELLS
        )

    def _admit(self, window: _Window, lens: Lens) -> _Slot:
        ids = [self._free.popleft() for _ in self.tries[lens].branches]
        rows = self._add_prompt(window.tokens, ids, lens)
        position = len(self.frames[lens].head) + len(window.tokens) + self._suffix_length(lens)
        return _Slot(window, ids, position, [], ReasoningWriter(window.text), self._cells_for(window, lens), rows)

    def _begin(self, newcomers: list[_Slot], active: list[_Slot], lens: Lens, choose: Choose) -> None:
        """Evaluate the prompts of ``newcomers``, then what is known of their answers, up to its last token.

        Both have batches of their own where the step that all take together would grow to a tile: tiles cost little
        where neighbouring rows share their cells, and several times the rest where every row is another sequence.
        """
        self.context.decode()
        for slot in newcomers:
            self._start_answer(slot, lens, choose)
        if sum(len(slot.pending) for slot in active) < TILE:
            return
        for slot in newcomers:
            if len(slot.pending) > self.context.room:
                self.context.decode()
            self._add_pending(slot, slot.pending[:-1])
            slot.pending = slot.pending[-1:]
        self.context.decode()

    def _step(self, active: list[_Slot], finished: dict[int, Explained]) -> None:
        """One forward pass for all active sequences, then each decides what it evaluates next."""
        for slot in active:
            slot.row = self._add_pending(slot, slot.pending, want_logits=True)
        self.context.decode()
        for slot in active:
            if self._write(slot):
                window = slot.window
                assert window.reading is not None
                assert window.label is not None
                finished[window.index] = Explained(window.reading, window.label, slot.writer.finish())
                self._release(slot.ids)

    def _add_pending(self, slot: _Slot, tokens: list[int], want_logits: bool = False) -> int:
        row = -1
        for token in tokens:
            row = self.context.add(token, slot.position, slot.ids[:1], want_logits)
            slot.position += 1
        return row

    def _start_answer(self, slot: _Slot, lens: Lens, choose: Choose) -> None:
        """Read the posterior, choose the label and force it and the JSON after it."""
        trie, window = self.tries[lens], slot.window
        if window.reading is None or window.label is None:
            window.reading = self._reading(trie, slot.rows)
            window.label = choose(window.reading.posterior)
        self._release(slot.ids[1:])
        slot.ids, slot.rows = slot.ids[:1], {}
        # A label that is the beginning of another ends with the first token of the bridge in the trie.
        label = self.model.encode(trie.labels[window.label])
        slot.pending = [*label, *self.frames[lens].bridge]

    def _write(self, slot: _Slot) -> bool:
        """Take the next token of the reasoning; says whether the sequence is finished."""
        token = next_token(slot.writer, self.context.logits(slot.row), self.pieces)
        slot.pending = [token]
        return token < 0 or slot.writer.done or slot.writer.exhausted()

    # Bookkeeping

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of every token, read on first use: label-only work needs none."""
        if self._pieces is None:
            self._pieces = self.model.pieces()
        return self._pieces

    def _evaluate_head(self, lens: Lens) -> None:
        if lens not in self._heads:
            frame = self.frames[lens]
            for position, token in enumerate(frame.head):
                self.context.add(token, position, [_HEADS[lens]])
            self.context.decode()
            self._heads.add(lens)

    def _release(self, ids: list[int]) -> None:
        for sequence in ids:
            self.context.drop(sequence)
            self._free.append(sequence)

    def _suffix_length(self, lens: Lens) -> int:
        return len(self.frames[lens].tail) + len(self.frames[lens].prefill)

    def _branch_tokens(self, lens: Lens) -> int:
        return sum(len(branch.path) for branch in self.tries[lens].branches)

    def _answer_length(self, lens: Lens) -> int:
        longest = max(len(path) for path in self.tries[lens].paths)
        return longest + len(self.frames[lens].bridge) + load_prompt().max_tokens

    def _cells_for(self, window: _Window, lens: Lens) -> int:
        answer = max(self._answer_length(lens), self._branch_tokens(lens))
        return len(window.tokens) + self._suffix_length(lens) + answer

    def _overhead(self) -> int:
        """The most tokens that prompt and answer add to a text, over both lenses."""
        return max(len(self.frames[lens].head) + self._suffix_length(lens) + self._answer_length(lens) for lens in Lens)


def _pool(collected: list[tuple[Reading, int]]) -> Reading:
    if len(collected) == 1:
        return collected[0][0]
    lengths = np.array([length for _, length in collected], np.float64)
    posterior = pool_windows(np.stack([r.posterior for r, _ in collected]), lengths)
    coverage = float(np.average([r.coverage for r, _ in collected], weights=lengths))
    return Reading(posterior, coverage)
