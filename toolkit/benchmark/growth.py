"""Whether speed and memory stay as they are when there is more to read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from toolkit.benchmark.machine import resident_bytes
from toolkit.benchmark.measure import read_all
from toolkit.benchmark.rounds import Report, spread
from toolkit.inference.engine import Engine

SIZES, EXPLAINED, WORDS = (100, 1_000, 10_000), (100, 300, 1_000), (1_250, 5_000, 20_000)


@dataclass(frozen=True, slots=True)
class Growth:
    """``amount`` texts, or one text of so many words: ``per_second`` of them, and memory in bytes at the end."""

    of: str
    mode: str
    amount: int
    per_second: float
    memory: int | None


def measure_growth(
    engine: Engine,
    texts: Sequence[str],
    sizes: Iterable[int] = SIZES,
    explained: Iterable[int] = EXPLAINED,
    words: Iterable[int] = WORDS,
    progress: Report | None = None,
) -> list[Growth]:
    """Read ever more texts, explain ever more, then read ever longer ones; they come from a source that keeps none.

    Every ladder of amounts is gone up and down again, so that a machine that slows down meanwhile looks like no growth.
    """
    kinds = (("texts", "fast", sizes), ("texts", "explain", explained), ("words", "fast", words))
    plan = [(of, mode, amount) for of, mode, amounts in kinds for amount in _up_and_down(sorted(amounts))]
    read_all(engine, texts[:50], "explain")  # so that all memory is taken before the first figure
    found: dict[tuple[str, str, int], Growth] = {}
    for done, (of, mode, amount) in enumerate(plan):
        if progress is not None:
            progress(done, len(plan), f"{amount:,} {of}, {mode}")
        source = many_texts(texts, amount) if of == "texts" else iter([long_text(texts, amount)])
        began = time.perf_counter()
        read_all(engine, source, mode)
        now = Growth(of, mode, amount, amount / (time.perf_counter() - began), resident_bytes())
        found[of, mode, amount] = _mean(found.get((of, mode, amount), now), now)
    return list(found.values())


def _up_and_down(amounts: list[int]) -> list[int]:
    return [*amounts, *amounts[-2::-1]]


def _mean(up: Growth, down: Growth) -> Growth:
    """The speed of both together, and the most memory."""
    rate = 2 / (1 / up.per_second + 1 / down.per_second)
    memory = max((m for m in (up.memory, down.memory) if m is not None), default=None)
    return replace(down, per_second=rate, memory=memory)


def many_texts(texts: Sequence[str], amount: int) -> Iterator[str]:
    """So many of the texts, over and over where that is more; fewer are spread by length, so that all are alike."""
    return itertools.islice(itertools.cycle(spread(texts, amount)), amount)


def long_text(texts: Sequence[str], words: int) -> str:
    """A text of ``words`` words, from the texts one after the other."""
    return " ".join(itertools.islice(itertools.cycle(word for text in texts for word in text.split()), words))


def widest_gaps(found: Sequence[Growth]) -> dict[str, float]:
    """For every kind of text and mode how far the slowest lies below the fastest, 0 to 1."""
    rates: dict[str, list[float]] = {}
    for growth in found:
        rates.setdefault(f"{growth.of}, {growth.mode}", []).append(growth.per_second)
    return {kind: 1 - min(some) / max(some) for kind, some in rates.items()}
