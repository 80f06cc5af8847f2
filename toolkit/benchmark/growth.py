"""Whether speed and memory stay as they are when there is more to read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import harmonic_mean

from toolkit.benchmark.machine import resident_bytes
from toolkit.benchmark.measure import read_all
from toolkit.benchmark.rounds import Report, spread
from toolkit.inference.engine import Engine

SIZES, EXPLAINED, WORDS = (100, 1_000, 10_000), (100, 300, 1_000), (1_250, 5_000, 20_000)


@dataclass(frozen=True, slots=True)
class Growth:
    """``amount`` texts, or one text of so many words: ``per_second`` of them.

    ``memory`` is what the process held, in bytes, once so much was read and nothing longer.
    """

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

    Every ladder of amounts is gone up and down again, so that a machine that slows down meanwhile looks like no growth;
    memory is that of the way up.
    """
    kinds = (("texts", "fast", sizes), ("texts", "explain", explained), ("words", "fast", words))
    plan = [(of, mode, amount) for of, mode, amounts in kinds for amount in _up_and_down(sorted(amounts))]
    read_all(engine, texts[:50], "explain")  # so that all memory is taken before the first figure
    up: dict[tuple[str, str, int], Growth] = {}
    rates: dict[tuple[str, str, int], list[float]] = {}
    for done, (of, mode, amount) in enumerate(plan):
        if progress is not None:
            progress(done, len(plan), f"{amount:,} {of}, {mode}")
        source = many_texts(texts, amount) if of == "texts" else iter([long_text(texts, amount)])
        began = time.perf_counter()
        read_all(engine, source, mode)
        rate = amount / (time.perf_counter() - began)
        up.setdefault((of, mode, amount), Growth(of, mode, amount, rate, resident_bytes()))
        rates.setdefault((of, mode, amount), []).append(rate)
    return [replace(growth, per_second=harmonic_mean(rates[rung])) for rung, growth in up.items()]


def _up_and_down(amounts: list[int]) -> list[int]:
    return [*amounts, *amounts[-2::-1]]


def many_texts(texts: Sequence[str], amount: int) -> Iterator[str]:
    """So many of the texts, over and over where that is more; fewer are as long on average."""
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
