"""A worker process with a model that answers at once and does what a text tells it to, however bad that is.

Started as ``stand_in:main`` in the place of the real one; protocol, processes, pipes and signals are the real ones.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from convert.errors import GGUFError
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ModelError
from toolkit.inference import worker_process
from toolkit.inference.turns import Watch

BATCH = 8


def main() -> None:
    """Serve the stand-in."""
    worker_process.serve(load)


def without_prctl() -> None:
    """Serve the stand-in on a system that cannot end a process with its parent."""
    worker_process._die_with = lambda _: None
    main()


def answering_twice() -> None:
    """Serve the stand-in and send every answer two times."""
    own_output = worker_process._own_output

    def doubling() -> Callable[[bytes], None]:
        write = own_output()
        return lambda lines: write(
            b"".join(line * (1 + (b'"analysis"' in line)) for line in lines.splitlines(keepends=True))
        )

    worker_process._own_output = doubling
    main()


def load(wanted: dict[str, Any], progress: Callable[[int, int, str], None]) -> StandIn:
    """The stand-in; some names stand for models that do not load."""
    progress(1, 2, "loading")
    match wanted["model"]:
        case "missing":
            raise ModelError("There is no model 'missing'.", "Known: none.")
        case "damaged":
            raise GGUFError("damaged.gguf is no GGUF.", "Build it again.")
        case "echo":
            raise ModelError(f"{wanted['adapter']} with {wanted['threads']} threads", "")
        case "surprise":
            raise ZeroDivisionError("by zero")
        case "sleepy":
            time.sleep(1)
        case "stillborn":
            os.abort()
        case str() as name if name.startswith("once:"):  # dies while loading for the second time
            mark = Path(name.removeprefix("once:"))
            if mark.exists():
                os.abort()
            mark.touch()
    return StandIn()


class StandIn:
    """Reads ``BATCH`` texts at a time; the analysis says which were read together, and is written in three steps."""

    name = "stand-in"
    lenses = (Lens.AUTHOR, Lens.READER)
    noise_line = 0.1

    def analyze_many(
        self,
        texts: Iterable[str | None],
        *,
        lens: Lens,
        taxonomy: str,
        mode: str,
        watch: Watch | None = None,
        pauses: bool = False,
    ) -> Iterator[Analysis]:
        """Analyses in order; a None among the texts ends a batch."""
        assert pauses
        batch: list[str] = []
        self._watch, self._number = watch if mode == "explain" else None, 0
        for text in texts:
            if text is not None:
                batch.append(text)
            if batch and (text is None or len(batch) == BATCH):
                yield from self._read(batch, lens, taxonomy, mode)
                batch = []
        yield from self._read(batch, lens, taxonomy, mode)

    def analyze_in_slices(
        self, text: str, *, lens: Lens, taxonomy: str, mode: str, watch: Watch | None = None
    ) -> Iterator[Analysis | None]:
        """The analysis after a slice for every word but the first; each takes as long as the first word says."""
        pause, *words = text.split()
        for _ in words:
            time.sleep(float(pause))
            yield None
        if watch is not None and mode == "explain":
            watch(0, lambda: self._analysis(text, "Read", lens, taxonomy, mode))
        yield self._analysis(text, f"Read in {len(words)} slices.", lens, taxonomy, mode)

    def _read(self, batch: list[str], lens: Lens, taxonomy: str, mode: str) -> Iterator[Analysis]:
        for text in batch:
            obey(text)
        for text in batch:
            reasoning = f"Read with {len(batch)} by {os.getpid()}."
            for end in (0, 4, 9):
                if self._watch is not None:
                    so_far = self._analysis(text, reasoning[:end], lens, taxonomy, mode)
                    self._watch(self._number, lambda so_far=so_far: so_far)  # type: ignore[misc]
                    time.sleep(0.5 if text == "slowly" else 0)
            self._number += 1
            yield self._analysis(text, reasoning, lens, taxonomy, mode)

    def _analysis(self, text: str, reasoning: str, lens: Lens, taxonomy: str, mode: str) -> Analysis:
        labels = load_taxonomy(taxonomy).labels
        scores = {label: 1.0 / len(labels) for label in labels}
        native = load_taxonomy(lens.native).labels
        fine = labels[0] if labels[0] in native else native[0]
        return Analysis(
            text, lens, taxonomy, mode, labels[0], fine, scores[labels[0]], False, (labels[0],), scores, 1.0, 0.0,
            reasoning, (), self.name,
        )  # fmt: skip


def answers_descriptor() -> int:
    """The descriptor that carries the answers: the only pipe besides the input that this process writes to."""
    return max(int(path.name) for path in Path("/proc/self/fd").iterdir() if is_pipe(path))


def is_pipe(path: Path) -> bool:
    """Whether a descriptor in /proc is a pipe."""
    try:
        return str(path.readlink()).startswith("pipe:")
    except FileNotFoundError:  # the descriptor of the listing itself
        return False


def obey(text: str) -> None:
    """Do what the first word of a text says."""
    word, _, rest = text.partition(" ")
    match word:
        case "abort":
            os.write(2, b"GGML_ASSERT(n_tokens > 0) failed\n")
            os.abort()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill-once":
            if not Path(rest).exists():
                Path(rest).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ModelError("llama.cpp could not evaluate a batch.", "Report this.")
        case "print":
            os.write(1, b"native code prints\n")
            print("so does Python")
        case "nonsense":
            os.write(answers_descriptor(), b"[1, 2]\n")
            time.sleep(60)
        case "hold":  # as long as the file that it makes is there
            Path(rest).touch()
            while Path(rest).exists():
                time.sleep(0.02)
        case "sleep":
            time.sleep(float(rest))
