"""Things to time, turn by turn, so that whatever else the machine does meets them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that does ``work``, which returns how many units (texts, tokens) it has done."""

    name: str
    mode: str
    work: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Row:
    """Texts a second of one contender, and how many times the ordinary way's in the same mode."""

    name: str
    mode: str
    texts_per_second: float
    ratio_to_ordinary: float | None


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


def rows_of(contenders: Sequence[Contender], rates: Sequence[float], ordinary: str) -> list[Row]:
    """The rates as rows, with the ratio to the contender named ``ordinary`` of the same mode, where there is one."""
    base: Mapping[str, float] = {c.mode: rate for c, rate in zip(contenders, rates, strict=True) if c.name == ordinary}
    return [
        Row(c.name, c.mode, rate, rate / base[c.mode] if c.mode in base else None)
        for c, rate in zip(contenders, rates, strict=True)
    ]


def spread(texts: Sequence[str], count: int) -> list[str]:
    """``count`` texts, evenly taken from all of them by length, so that a small sample is as long on average."""
    ranked = sorted(texts, key=len)
    count = min(count, len(ranked))
    return [ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count)]
