"""Many texts at a time through one shared prompt: exact label posteriors, then constrained reasoning.

Contexts on the same weights share the work. One reads: :class:`~toolkit.inference.prompts.PromptReader` packs prompts
into passes that give posteriors and nothing else. Another writes: keys and values of a prompt move over, and
:class:`~toolkit.inference.writing.AnswerWriter` decodes many answers together. Apart, neither is slowed down by the
other's cells, and what is read does not depend on what is written beside it. A third, of few and long sequences, writes
the answers to long prompts. Those two are made when they are first needed, so that who only reads pays for none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame, check_boundaries, frame_for, load_prompt
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import LabelTrie, build_trie
from toolkit.inference import prompts, writing
from toolkit.inference.abi import self_test_on
from toolkit.inference.native import NativeAdapter, NativeContext, NativeModel
from toolkit.inference.prompts import LONGEST, SEQUENCES, Prompt, PromptReader, Reading, Window, pool
from toolkit.inference.tuning import Tuning, available_threads, find_tuning, free_threads
from toolkit.inference.writing import AnswerWriter, Explained, Task

__all__ = ["LONGEST", "Choose", "Engine", "Explained", "Reading", "Survey", "Written", "available_threads"]

LONG_ANSWERS = 8  # sequences for answers to long prompts
Choose = Callable[[np.ndarray], int]
# Number and words of a text, its reading, and what is written of its reasoning.
Written = Callable[[int, str, Reading, str], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """A text that was read window by window: what they say together, and each for itself."""

    reading: Reading
    prompts: Sequence[Prompt]

    def clearest(self, label: int) -> Window:
        """The window that speaks most clearly for a label, to be explained for all."""
        best = max(self.prompts, key=lambda prompt: float(prompt.reading.posterior[label]))
        return replace(best.window, chosen=(self.reading, label))


class Engine:
    """A loaded GGUF that reads many texts. Not thread-safe, but several readings may go on by turns in one thread.

    Args:
        path: a GGUF whose vocabulary has one of the prompt's frames.
        threads: None takes what was measured to be best, but no more processors than are free.
        gpu_layers: layers that go to a GPU, 0 for none, -1 for all.
        context_window: the most tokens that one sequence may take, None for what the model's metadata says; a longer
            text is read in overlapping windows.
        lora: a GGUF-LoRA to add to the weights; see :meth:`swap`.
        tuning: None takes the one that ``bench --tune`` left for this machine and model, if there is one.
        by_grammar: sample with llama.cpp's full grammar sampler, to compare: the same answers, many times slower.

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
        by_grammar: bool = False,
    ) -> None:
        self.model = NativeModel(path, gpu_layers)
        self.tuning = tuning or find_tuning(self.model.header.metadata) or Tuning()
        self.threads, single = (threads, threads) if threads else self.tuning.among(free_threads())
        self.frames: dict[Lens, Frame] = {lens: frame_for(self.model, lens) for lens in Lens}
        self.tries: dict[Lens, LabelTrie] = {
            lens: build_trie(self.model, load_taxonomy(lens.native).labels) for lens in Lens
        }
        for trie in self.tries.values():
            check_boundaries(self.model, trie.labels)
        self.context = NativeContext(self.model, prompts.CELLS, LONGEST, SEQUENCES, self.threads, single)
        self._single, self._by_grammar = single, by_grammar
        self.adapter: NativeAdapter | None = None
        window = context_window or int(self.model.header.metadata.get("emotion_lrm.context_window", LONGEST))
        shared = (self.model, self.context, self.frames, self.tries)
        rows = LONGEST if gpu_layers else self.tuning.rows or prompts.ROWS
        self._reader = PromptReader(*shared, min(window, LONGEST) - self._overhead(), rows, exact=not gpu_layers)
        self._writers: dict[bool, AnswerWriter] = {}  # by whether they take long prompts
        if lora is not None:
            self.swap(lora)

    @property
    def contexts(self) -> list[NativeContext]:
        """The context that reads, then those that write, as far as they were needed."""
        return [self.context, *(writer.context for writer in self._writers.values())]

    def swap(self, lora: Path | None) -> None:
        """Read on with another adapter, or with the bare model, without loading the weights again.

        Call it between two readings, not while one goes on. An adapter that is refused leaves the old one at work.

        Raises:
            ConvertError: for a damaged file.
            ModelError: for an adapter of another model.
        """
        adapter = NativeAdapter(self.model, lora) if lora is not None else None
        for context in self.contexts:
            context.use_adapter(adapter)
        self.adapter = adapter
        self._reader.heads.forget()

    def self_test(self) -> None:
        """Look whether llama.cpp's sequences can be trusted with this model; call it before the first reading.

        Raises:
            ModelError: where they cannot.
        """
        pen = self._pen(writing.CELLS, 2)
        try:
            self_test_on(self.context, pen, self.model)
        finally:
            pen.close()

    def use_threads(self, single: int) -> None:
        """From the next pass on so many threads for a pass of a single token."""
        self._single = single
        for context in self.contexts:
            context.use_threads(single, self.threads)

    def close(self) -> None:
        """Free contexts and weights; safe to call twice."""
        for context in self.contexts:
            context.close()
        self.model.close()

    def read(self, texts: Iterable[str | None], lens: Lens) -> Iterator[Reading]:
        """The posterior and coverage of every text, in order; lazy, one forward pass at a time.

        Args:
            texts: a None among them says that none is there at the moment, so a pass goes off that is not full.
        """
        nothing: list[Window | None] = [None]
        windows = (window for text in texts for window in (nothing if text is None else self._reader.split(text)))
        collected: list[Prompt] = []
        for prompt in itertools.chain.from_iterable(self._reader.passes(windows, lens)):
            collected.append(prompt)
            if prompt.window.last:
                yield pool(collected)
                collected = []

    def survey(self, text: str, lens: Lens) -> Iterator[Survey | None]:
        """Read one long text: None after each forward pass, so that others can be read in between, then the survey."""
        found: list[Prompt] = []
        for read in self._reader.passes(self._reader.split(text), lens):
            found += read
            yield None
        yield Survey(pool(found), found)

    def explain(
        self, texts: Iterable[str | Window | None], lens: Lens, choose: Choose, watch: Written | None = None
    ) -> Iterator[Explained]:
        """Reading, label and reasoning of every text, in order; lazy with a bounded look-ahead.

        Args:
            texts: a None among them says that none is there at the moment, so the sequences at work go on alone. A
                window is what :meth:`Survey.clearest` found.
            choose: from a posterior the index of the native label to argue for.
            watch: called for every text at work whenever its reasoning has grown by a token; of a text of several
                windows it hears the words of the one that is explained.
        """
        answers: dict[int, Explained] = {}
        tasks = self._tasks(texts, lens, choose, answers)
        ready: list[Task] = []
        due, more = 0, True
        try:
            while self._busy(answers) or more or ready:
                more = self._fill(ready, tasks, lens)
                for writer in tuple(self._writers.values()):  # who watches may read a first long text meanwhile
                    writer.step()
                    if watch is not None:
                        for task, written in writer.grown(answers):
                            watch(task.number, task.prompt.window.text, task.reading, written)
                while due in answers:
                    yield answers.pop(due)
                    due += 1
        finally:
            for writer in self._writers.values():
                writer.abandon(answers)

    def _busy(self, answers: dict[int, Explained]) -> bool:
        """Whether a sequence is at work for the caller of these answers; every writer may say that it has lost one."""
        busy = [writer.busy(answers) for writer in self._writers.values()]
        return any(busy)

    def _fill(self, ready: list[Task], tasks: Iterator[list[Task]], lens: Lens) -> bool:
        """Let sequences join while there is room, and read on where there still is; says whether more may come.

        Short prompts overtake some long ones that wait.
        """
        while True:
            ready[:] = [task for task in ready if not self._admit(task, lens)]
            if len(ready) > LONG_ANSWERS or not self._writer(long=False).places:
                return True
            read = next(tasks, None)
            if not read:
                return read is not None
            ready.extend(read)

    def _tasks(
        self, texts: Iterable[str | Window | None], lens: Lens, choose: Choose, answers: dict[int, Explained]
    ) -> Iterator[list[Task]]:
        """What is to be written, a pass of prompts at a time."""
        numbers = itertools.count()
        windows = (None if text is None else self._window(text, lens, choose) for text in texts)
        for read in self._reader.passes(windows, lens, keep=True):
            yield [Task(next(numbers), prompt, *_decide(prompt, choose), answers) for prompt in read]

    def _window(self, text: str | Window, lens: Lens, choose: Choose) -> Window:
        """The window that is explained: the whole text, or of several the clearest."""
        if isinstance(text, Window):
            return text
        windows = self._reader.split(text)
        if len(windows) == 1:
            return windows[0]
        survey = [found for found in self.survey(text, lens) if found][-1]
        return survey.clearest(choose(survey.reading.posterior))

    # Bookkeeping

    def _admit(self, task: Task, lens: Lens) -> bool:
        """Let a task join where the sequences are long enough for it; says whether there was a place."""
        writer = self._writer(long=not self._writer(long=False).fits(task, lens))
        if writer.places:
            writer.admit(task, lens)
            return True
        return False

    def _writer(self, long: bool) -> AnswerWriter:
        """The writer of answers to long prompts, or to the others."""
        if long not in self._writers:
            pen = self._pen(LONGEST, LONG_ANSWERS) if long else self._pen(writing.CELLS, self.tuning.active)
            self._writers[long] = AnswerWriter(self.model, pen, self.frames, self.tries, self._by_grammar)
        return self._writers[long]

    def _pen(self, cells: int, sequences: int) -> NativeContext:
        """A new context to write in, whose sequences have so many cells each."""
        threads = (self.threads, self._single)
        pen = NativeContext(self.model, cells * sequences, writing.ROWS, sequences, *threads, unified=False)
        if self.adapter is not None:
            pen.use_adapter(self.adapter)
        return pen

    def _suffix_length(self, lens: Lens) -> int:
        return len(self.frames[lens].tail) + len(self.frames[lens].prefill)

    def _answer_length(self, lens: Lens) -> int:
        longest = max(len(path) for path in self.tries[lens].paths)
        return longest + len(self.frames[lens].bridge) + load_prompt().max_tokens

    def _overhead(self) -> int:
        """The most tokens that prompt and answer add to a text, over both lenses."""
        return max(len(self.frames[lens].head) + self._suffix_length(lens) + self._answer_length(lens) for lens in Lens)


def _decide(prompt: Prompt, choose: Choose) -> tuple[Reading, int]:
    """What a prompt says, or all windows of its text together, and the label that is argued for."""
    return prompt.window.chosen or (prompt.reading, choose(prompt.reading.posterior))
