"""Answers: many sequences written at the same time, with sequences joining and leaving (continuous batching).

The label and the JSON that is already known are forced; only the reasoning is sampled. A sequence that ends makes room
for the next at once. Each has KV cells of its own, so that attention walks over no cell of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, load_prompt
from toolkit.contract.trie import LabelTrie
from toolkit.errors import ModelError
from toolkit.inference.cross_check import FullGrammar
from toolkit.inference.native import NativeContext, NativeModel
from toolkit.inference.prompts import Prompt, Reading
from toolkit.inference.reasoning import ReasoningWriter, next_token

ROWS = 63  # tokens that a pass may take
CELLS = 256  # of a sequence, for prompt and answer: as few as llama.cpp gives
FEW = 8  # sequences at work; beside more, those that join do so word by word


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
    """One sequence at work: what it has still to evaluate, and from which position on."""

    task: Task
    writer: ReasoningWriter
    position: int
    pending: list[int]
    grammar: FullGrammar | None = None


class AnswerWriter:
    """Writes the answers to prompts in a context of its own; several callers may have sequences at work.

    Args:
        context: one whose sequences have cells of their own.
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
        self._answers: dict[tuple[Lens, int], list[int]] = {}
        self._slots: dict[int, _Slot] = {}  # by sequence
        self._grown: list[_Slot] = []  # which the last step left at work with a token more
        self._lost: list[dict[int, Explained]] = []  # the answers to which a failed step lost some

    def busy(self, answers: dict[int, Explained]) -> bool:
        """Whether a sequence is at work for the caller of these answers.

        Raises:
            ModelError: where one was that a step on behalf of another caller lost.
        """
        if any(lost is answers for lost in self._lost):
            raise ModelError(
                "Another reading failed in a pass of the model that this one shared, which lost texts of both.",
                "Read what has no answer once more.",
            )
        return any(slot.task.answers is answers for slot in self._slots.values())

    @property
    def places(self) -> int:
        """How many sequences could join."""
        return self.context.n_sequences - len(self._slots)

    def fits(self, task: Task, lens: Lens) -> bool:
        """Whether a sequence has cells enough for the prompt and the longest answer."""
        longest = task.prompt.length + len(self._known_answer(task.label, lens)) + load_prompt().max_tokens
        return longest <= self.context.n_cells // self.context.n_sequences

    def admit(self, task: Task, lens: Lens) -> None:
        """Let a sequence join, for which there has to be a place."""
        answer, text = self._known_answer(task.label, lens), task.prompt.window.text
        sequence = self._lowest_free()
        slot = self._slots[sequence] = _Slot(task, ReasoningWriter(text), task.prompt.length, answer)
        try:
            self.context.load(sequence, task.prompt.state)
            if self._by_grammar:
                slot.grammar = FullGrammar(self._model, lens, text, [*self._frames[lens].prefill, *answer])
        except BaseException:
            self._leave(sequence)
            raise

    def step(self) -> None:
        """One forward pass for all sequences at work, if any; those that it finishes leave their answers.

        All evaluate equally many tokens: what is known of the answer of one that joins comes a token a pass beside the
        words of the others. Only where few are at work it goes ahead of them. A step that fails leaves none at work, as
        some may have evaluated what others have not.
        """
        try:
            self._step()
        except BaseException:
            self._lost += [slot.task.answers for slot in self._slots.values()]
            self._let_go(self._slots)
            raise

    def _step(self) -> None:
        self._grown = []
        self._close_gaps()
        at_work = sorted(self._slots)
        joining = [sequence for sequence in at_work if len(self._slots[sequence].pending) > 1]
        sequences = joining if joining and len(at_work) <= FEW else at_work
        if not sequences:
            return
        slots = [self._slots[sequence] for sequence in sequences]
        width = min(ROWS // len(slots), *(len(slot.pending) for slot in slots))
        heard = [len(slot.pending) == width for slot in slots]
        tokens = [slot.pending[:width] for slot in slots]
        self.context.add_each(tokens, [slot.position for slot in slots], sequences, heard)
        self.context.decode()
        for slot in slots:
            slot.position, slot.pending = slot.position + width, slot.pending[width:]
        waiting = [sequence for sequence, slot in zip(sequences, slots, strict=True) if not slot.pending]
        for sequence, logits in zip(waiting, self.context.outputs(), strict=True):
            slot = self._slots[sequence]
            if self._write(slot, logits):
                task = slot.task
                task.answers[task.number] = Explained(task.reading, task.label, slot.writer.finish())
                self._leave(sequence)
            else:
                self._grown.append(slot)

    def grown(self, answers: dict[int, Explained]) -> Iterator[tuple[Task, str]]:
        """What is written of every reasoning for a caller that the last step has made longer and not finished."""
        return ((slot.task, slot.writer.written) for slot in self._grown if slot.task.answers is answers)

    def abandon(self, answers: dict[int, Explained]) -> None:
        """Let every sequence of a caller go."""
        self._lost = [lost for lost in self._lost if lost is not answers]
        self._let_go(sequence for sequence, slot in self._slots.items() if slot.task.answers is answers)

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

    def _lowest_free(self) -> int:
        return next(sequence for sequence in range(self.context.n_sequences) if sequence not in self._slots)

    def _close_gaps(self) -> None:
        """Move the last sequences into the places of those that have left: llama.cpp splits a pass at every gap."""
        while self._slots and (last := max(self._slots)) >= len(self._slots):
            sequence = self._lowest_free()
            self.context.fork(last, sequence)
            self.context.drop(last)
            self._slots[sequence] = self._slots.pop(last)

    def _let_go(self, sequences: Iterable[int]) -> None:
        self.context.discard()
        for sequence in tuple(sequences):
            self._leave(sequence)

    def _leave(self, sequence: int) -> None:
        slot = self._slots.pop(sequence)
        if slot.grammar is not None:
            slot.grammar.close()
        self.context.drop(sequence)
