"""Things to time, turn by turn, so that whatever else the machine does meets them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that does ``work`` on so many ``texts``; it returns how many units (texts, tokens) it has done."""

    name: str
    mode: str
    texts: int
    work: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Row:
    """Texts a turn and a second of one contender, and how many times what others reach in the same mode.

    A ratio is None where the other did not take part.
    """

    name: str
    mode: str
    texts: int
    texts_per_second: float
    ratio_to_ordinary: float | None
    ratio_to_server: float | None = None


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    progress: Report | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Units a second of each contender: the median over ``rounds``, after one turn each that does not count."""
    rates: list[list[float]] = [[] for _ in contenders]
    total = (rounds + 1) * len(contenders)
    for turn in range(total):
        contender = contenders[turn % len(contenders)]
        if progress is not None:
            progress(turn, total, f"{contender.name}, {contender.mode}")
        began = clock()
        done = contender.work()
        rates[turn % len(contenders)].append(done / (clock() - began))
    if progress is not None:
        progress(total, total, "timing")
    return [statistics.median(found[1:]) for found in rates]


def rows_of(contenders: Sequence[Contender], rates: Sequence[float], ordinary: str, server: str) -> list[Row]:
    """The rates as rows, with the ratios to the contenders of these two names."""
    known = {(one.name, one.mode): rate for one, rate in zip(contenders, rates, strict=True)}

    def ratio(one: Contender, other: str) -> float | None:
        base = known.get((other, one.mode))
        return known[one.name, one.mode] / base if base else None

    return [
        Row(one.name, one.mode, one.texts, rate, ratio(one, ordinary), ratio(one, server))
        for one, rate in zip(contenders, rates, strict=True)
    ]


def spread(texts: Sequence[str], count: int) -> list[str]:
    """``count`` texts in their order, evenly taken from all by length, so that a small sample is as long on average."""
    ranked = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    count = min(count, len(ranked))
    return [texts[index] for index in sorted(ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count))]
