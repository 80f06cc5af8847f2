"""Whether speed and memory stay as they are when there is more to read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.benchmark.machine import resident_bytes
from toolkit.benchmark.rounds import Report
from toolkit.contract.lens import Lens
from toolkit.inference.engine import Engine

SIZES, WORDS = (100, 1_000, 10_000), (1_250, 5_000, 20_000)


@dataclass(frozen=True, slots=True)
class Growth:
    """``amount`` texts, or one text of so many words: ``per_second`` of them, and memory in bytes at the end."""

    of: str
    amount: int
    per_second: float
    memory: int | None


def measure_growth(
    engine: Engine,
    texts: Sequence[str],
    sizes: Iterable[int] = SIZES,
    words: Iterable[int] = WORDS,
    progress: Report | None = None,
) -> list[Growth]:
    """Read ever more texts, then ever longer ones, in fast mode; texts come from a source that keeps none."""
    plan = [("texts", n) for n in sizes] + [("words", n) for n in words]
    for _ in engine.read(texts[:50], Lens.AUTHOR):
        pass
    found = []
    for done, (of, amount) in enumerate(plan):
        if progress is not None:
            progress(done, len(plan), f"{amount:,} {of}")
        source = itertools.islice(itertools.cycle(texts), amount) if of == "texts" else iter([long_text(texts, amount)])
        began = time.perf_counter()
        for _ in engine.read(source, Lens.AUTHOR):
            pass
        found.append(Growth(of, amount, amount / (time.perf_counter() - began), resident_bytes()))
    return found


def long_text(texts: Sequence[str], words: int) -> str:
    """A text of ``words`` words, from the texts one after the other."""
    return " ".join(itertools.islice(itertools.cycle(word for text in texts for word in text.split()), words))


def widest_gap(found: Sequence[Growth], of: str) -> float:
    """How far the slowest lies below the fastest, 0 to 1."""
    rates = [growth.per_second for growth in found if growth.of == of]
    return 1 - min(rates) / max(rates) if rates else 0.0
