"""Answers: many sequences written at the same time, with sequences joining and leaving (continuous batching).

The label and the JSON that is already known are forced; only the reasoning is sampled. A sequence that ends makes room
for the next at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, load_prompt
from toolkit.contract.trie import LabelTrie
from toolkit.errors import ModelError
from toolkit.inference.cross_check import FullGrammar
from toolkit.inference.native import NativeContext, NativeModel
from toolkit.inference.prompts import ROWS, Heads, Prompt, Reading
from toolkit.inference.reasoning import ReasoningWriter, next_token

CELLS = 4096


@dataclass(frozen=True, slots=True)
class Explained:
    """A reading with the native label that was argued for and the reasoning."""

    reading: Reading
    label: int
    reasoning: str


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to be answered with ``label``; ``reading`` goes into the answer.

    Attributes:
        answers: where the answer is put, by ``number``; each caller has its own, which tells their tasks apart.
    """

    number: int
    prompt: Prompt
    reading: Reading
    label: int
    answers: dict[int, Explained]


@dataclass(slots=True)
class _Slot:
    """One sequence at work: what it has still to evaluate, from which position on, and the most cells it may take."""

    task: Task
    sequence: int
    writer: ReasoningWriter
    position: int
    pending: list[int]
    cells: int
    grammar: FullGrammar | None = None


class AnswerWriter:
    """Writes the answers to prompts in a context of its own; several callers may have sequences at work.

    Args:
        by_grammar: sample with llama.cpp's full grammar sampler instead, to compare; many times slower.
    """

    def __init__(
        self,
        model: NativeModel,
        context: NativeContext,
        frames: Mapping[Lens, Frame],
        tries: Mapping[Lens, LabelTrie],
        by_grammar: bool = False,
    ) -> None:
        self._model, self.context, self._frames, self._tries = model, context, frames, tries
        self._by_grammar = by_grammar
        places = context.n_sequences - len(Lens)
        self.heads = Heads(context, frames, first=places)
        self._free = deque(range(places))
        self._answers: dict[tuple[Lens, int], list[int]] = {}
        self._slots: list[_Slot] = []

    def busy(self, answers: dict[int, Explained]) -> bool:
        """Whether a sequence is at work for the caller of these answers."""
        return any(slot.task.answers is answers for slot in self._slots)

    @property
    def places(self) -> int:
        """How many sequences could join."""
        return len(self._free)

    def admit(self, task: Task, lens: Lens) -> bool:
        """Let a sequence join; says whether there is room for it now."""
        if not self._free:
            return False
        prompt, answer = task.prompt, self._known_answer(task.label, lens)
        cells = prompt.length - len(self._frames[lens].head) + len(answer) + load_prompt().max_tokens
        taken = self.heads.cells + sum(slot.cells for slot in self._slots)
        rows = sum(len(slot.pending) for slot in self._slots)
        if taken + cells > self.context.n_cells or rows + len(answer) > ROWS:
            if not self._slots:  # nobody will make room, so waiting would have no end
                raise ModelError("A prompt and its answer do not fit into the context.", "Report this with --debug.")
            return False
        self.heads.evaluate(lens)
        sequence, text = self._free.popleft(), prompt.window.text
        slot = _Slot(task, sequence, ReasoningWriter(text), prompt.length, answer, cells)
        self._slots.append(slot)
        try:
            self.context.load(sequence, prompt.state)
            self.heads.fork(lens, sequence)
            if self._by_grammar:
                slot.grammar = FullGrammar(self._model, lens, text, [*self._frames[lens].prefill, *answer])
        except BaseException:
            self._leave(slot)
            raise
        return True

    def step(self) -> None:
        """One forward pass for all sequences at work, if any; those that it finishes leave their answers."""
        if not self._slots:
            return
        steady = [slot for slot in self._slots if len(slot.pending) == 1]
        joining = [slot for slot in self._slots if len(slot.pending) > 1]
        self.context.add_each(
            [slot.pending[0] for slot in steady],
            [slot.position for slot in steady],
            [slot.sequence for slot in steady],
        )
        for slot in joining:
            self.context.add(slot.pending, slot.position, [slot.sequence], want_logits=True)
        self.context.decode()
        for slot, logits in zip([*steady, *joining], self.context.outputs(), strict=True):
            slot.position += len(slot.pending)
            if self._write(slot, logits):
                task = slot.task
                task.answers[task.number] = Explained(task.reading, task.label, slot.writer.finish())
                self._leave(slot)

    def unfinished(self, answers: dict[int, Explained]) -> Iterator[tuple[Task, str]]:
        """What every sequence at work for a caller has written of its reasoning."""
        return ((slot.task, slot.writer.written) for slot in self._slots if slot.task.answers is answers)

    def abandon(self, answers: dict[int, Explained]) -> None:
        """Let every sequence of a caller go."""
        self.context.discard()
        for slot in tuple(self._slots):
            if slot.task.answers is answers:
                self._leave(slot)

    def _write(self, slot: _Slot, logits: np.ndarray) -> bool:
        """Take the next token of the reasoning; says whether the sequence is finished."""
        if slot.grammar is None:
            token = next_token(slot.writer, logits, self._model.pieces)
        else:
            token = slot.grammar.next_token(slot.writer, logits, self._model.pieces)
        slot.pending = [token]
        return token < 0 or slot.writer.done or slot.writer.exhausted()

    def _known_answer(self, label: int, lens: Lens) -> list[int]:
        """The tokens of the label and of the JSON up to the reasoning."""
        if (lens, label) not in self._answers:
            # A label that is the beginning of another ends with the first token of the bridge in the trie.
            tokens = self._model.encode(self._tries[lens].labels[label])
            self._answers[lens, label] = [*tokens, *self._frames[lens].bridge]
        return self._answers[lens, label]

    def _leave(self, slot: _Slot) -> None:
        if slot.grammar is not None:
            slot.grammar.close()
        self.context.drop(slot.sequence)
        self._free.append(slot.sequence)
        self._slots.remove(slot)
