"""How many tokens a second model files take in and write on this machine, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.inference.abi import check_abi
from toolkit.inference.native import NativeContext, NativeModel
from toolkit.inference.tuning import Tuning, available_threads
from toolkit.inference.writing import CELLS

PROMPT_TOKENS, WRITTEN_TOKENS = 30, 40
"""Tokens of a typical text with its prompt, and of its reasoning: what ``Throughput.texts`` reckons with."""

ACTIVE = Tuning().active
_EACH, _STEPS = 16, 8  # tokens that each sequence starts with, and tokens that it writes
_TEXT = "The quick brown fox jumps over the lazy dog, and it is glad that it did. "


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens a second: ``prompt`` in batches of many texts, ``decode`` for as many sequences as the engine writes."""

    prompt: float
    decode: float

    @property
    def texts(self) -> float:
        """Texts a second, read and explained."""
        return 1 / (PROMPT_TOKENS / self.prompt + WRITTEN_TOKENS / self.decode)


def measure_throughput(
    paths: Sequence[Path],
    threads: int | None = None,
    rounds: int = 5,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Throughput]:
    """Measure all files once a round, so that whatever else the machine does meets them alike; medians over rounds.

    Raises:
        ModelError, ConvertError: for a file that does not load.
    """
    check_abi()
    taken: list[list[Throughput]] = [[] for _ in paths]
    for turn in range(rounds * len(paths)):
        if progress is not None:
            progress(turn, rounds * len(paths), "timing")
        taken[turn % len(paths)].append(_measure(paths[turn % len(paths)], threads or available_threads()))
    if progress is not None:
        progress(rounds * len(paths), rounds * len(paths), "timing")
    return [
        Throughput(statistics.median(t.prompt for t in times), statistics.median(t.decode for t in times))
        for times in taken
    ]


def _measure(path: Path, threads: int) -> Throughput:
    model = NativeModel(path)
    try:
        reading = NativeContext(model, ACTIVE * _EACH, ACTIVE * _EACH, ACTIVE, threads)
        writing = NativeContext(model, ACTIVE * CELLS, ACTIVE * _EACH, ACTIVE, threads, unified=False)
        try:
            tokens = (model.encode(_TEXT) * _EACH)[:_EACH]
            _prompt(writing, tokens)  # the first pass reads the weights from the disk
            prompt = _seconds(lambda: _prompt(reading, tokens))
            decode = _seconds(lambda: _decode(writing, tokens[0]))
        finally:
            reading.close()
            writing.close()
    finally:
        model.close()
    return Throughput(ACTIVE * _EACH / prompt, ACTIVE * _STEPS / decode)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _prompt(context: NativeContext, tokens: Sequence[int]) -> None:
    for sequence in range(ACTIVE):
        row = context.add(tokens, 0, [sequence], want_logits=True)
    context.decode()
    context.logits(row)


def _decode(context: NativeContext, token: int) -> None:
    for step in range(_STEPS):
        for sequence in range(ACTIVE):
            row = context.add([token], _EACH + step, [sequence], want_logits=True)
        context.decode()
        context.logits(row)
