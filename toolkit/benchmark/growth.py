"""Whether speed and memory stay as they are when there is more to read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import harmonic_mean

from toolkit.benchmark.machine import resident_bytes
from toolkit.benchmark.measure import read_all
from toolkit.benchmark.rounds import Report, spread
from toolkit.inference.engine import Engine

SIZES, EXPLAINED, WORDS = (100, 1_000, 10_000), (100, 300, 1_000), (1_250, 5_000, 20_000)


@dataclass(frozen=True, slots=True)
class Growth:
    """``amount`` texts, or one text of so many words: ``per_second`` of them.

    ``to_smallest`` is that speed over the one that the smallest amount had just before and just after. ``memory`` is
    what the process held, in bytes, once so much was read and nothing longer.
    """

    of: str
    mode: str
    amount: int
    per_second: float
    to_smallest: float
    memory: int | None


def measure_growth(
    engine: Engine,
    texts: Sequence[str],
    sizes: Sequence[int] = SIZES,
    explained: Sequence[int] = EXPLAINED,
    words: Sequence[int] = WORDS,
    progress: Report | None = None,
) -> list[Growth]:
    """Read ever more texts, explain ever more, then read ever longer ones; they come from a source that keeps none.

    Every ladder of amounts is gone up and down again, and the smallest amount is read before and after each of the
    others and measures them, so that a machine that drifts meanwhile hardly looks like growth.
    """
    ladders = [
        (of, mode, sorted(amounts))
        for of, mode, amounts in (("texts", "fast", sizes), ("texts", "explain", explained), ("words", "fast", words))
        if amounts
    ]
    steps, done = sum(1 + 2 * len(_up_and_down(ladder[1:])) for *_, ladder in ladders), itertools.count()
    read_all(engine, texts[:50], "explain")  # so that all memory is taken before the first figure

    def read(of: str, mode: str, amount: int) -> Growth:
        if progress is not None:
            progress(next(done), steps, f"{amount:,} {of}, {mode}")
        source = many_texts(texts, amount) if of == "texts" else iter([long_text(texts, amount)])
        began = time.perf_counter()
        read_all(engine, source, mode)
        return Growth(of, mode, amount, amount / (time.perf_counter() - began), 1.0, resident_bytes())

    return [growth for of, mode, ladder in ladders for growth in _climb(partial(read, of, mode), ladder)]


def _climb(read: Callable[[int], Growth], ladder: Sequence[int]) -> list[Growth]:
    """One figure for each amount, the smallest first; memory is that of the way up."""
    smallest, *larger = ladder
    steady, rungs = [read(smallest)], dict[int, list[Growth]]()
    for amount in _up_and_down(larger):
        rung = read(amount)
        steady.append(read(smallest))
        around = harmonic_mean([one.per_second for one in steady[-2:]])
        rungs.setdefault(amount, []).append(replace(rung, to_smallest=rung.per_second / around))
    return [_mean(steady), *map(_mean, rungs.values())]


def _mean(found: Sequence[Growth]) -> Growth:
    rate, ratio = (harmonic_mean([getattr(one, key) for one in found]) for key in ("per_second", "to_smallest"))
    return replace(found[0], per_second=rate, to_smallest=ratio)


def _up_and_down(amounts: list[int]) -> list[int]:
    return [*amounts, *amounts[-2::-1]]


def many_texts(texts: Sequence[str], amount: int) -> Iterator[str]:
    """So many of the texts, over and over where that is more; fewer are as long on average."""
    return itertools.islice(itertools.cycle(spread(texts, amount)), amount)


def long_text(texts: Sequence[str], words: int) -> str:
    """A text of ``words`` words, from the texts one after the other."""
    return " ".join(itertools.islice(itertools.cycle(word for text in texts for word in text.split()), words))


def widest_gaps(found: Sequence[Growth]) -> dict[str, float]:
    """For every kind of text and mode how far the slowest lies below the fastest, 0 to 1, by ``to_smallest``."""
    ratios: dict[str, list[float]] = {}
    for growth in found:
        ratios.setdefault(f"{growth.of}, {growth.mode}", []).append(growth.to_smallest)
    return {kind: 1 - min(some) / max(some) for kind, some in ratios.items()}
