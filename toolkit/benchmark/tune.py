"""A short search for the settings that suit this machine, one setting after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.benchmark.measure import read_all
from toolkit.benchmark.rounds import Report, spread
from toolkit.inference import kernel
from toolkit.inference.engine import Engine
from toolkit.inference.prompts import LONGEST, TILED
from toolkit.inference.tuning import Tuning, available_threads

Score = Callable[[Tuning, str], float]
ACTIVE = (16, 24, 32, 48)
TEXTS = 3 * max(ACTIVE)  # fewer would mostly time how the last sequences run out


def choices(cores: int, widest: int) -> dict[str, list[int]]:
    """What is tried of each setting, in this order; ``widest`` is the most tokens that a pass may take."""
    threads = sorted({cores, max(1, cores // 2), max(1, cores - 1)}, reverse=True)
    return {
        "threads": threads,
        "single_threads": threads,
        "rows": [rows for rows in (448, 128, 48) if rows <= widest],
        "active": list(ACTIVE),
    }


def search(score: Score, options: dict[str, list[int]], progress: Report | None = None) -> tuple[Tuning, float]:
    """The best tuning and its score (higher is better): settings one by one, each kept where it is 3 % better.

    Args:
        score: from a tuning, and the name of the setting that is being looked at, how good it is.
    """
    best = Tuning(options["threads"][0], options["single_threads"][0])
    total, done, level = sum(map(len, options.values())), 0, 0.0
    for name, values in options.items():
        level = score(best, name)
        for value in values:
            if progress is not None:
                progress(done, total, f"{name} {value}")
            done += 1
            tried = replace(best, **{name: value})
            if tried != best and (found := score(tried, name)) > 1.03 * level:
                best, level = tried, found
    if progress is not None:
        progress(total, total, "tuning")
    return best, score(best, "active")


def tune(path: Path, texts: Sequence[str], progress: Report | None = None) -> tuple[Tuning, float]:
    """Search on a model file; the score is texts explained a second.

    Raises:
        ModelError, ConvertError: for a file that does not load.
    """
    sample = spread(texts, TEXTS)

    def score(tuning: Tuning, setting: str) -> float:
        engine = Engine(path, threads=tuning.threads, tuning=tuning)
        try:
            if setting == "single_threads":
                engine.use_threads(tuning.single_threads or 1)
                return max(rates(engine, spread(texts, 1), turns=4))
            return max(rates(engine, sample, turns=2))
        finally:
            engine.close()

    widest = TILED - 1 if kernel.install() else LONGEST
    return search(score, choices(available_threads(), widest), progress)


def rates(engine: Engine, texts: Sequence[str], turns: int) -> Iterator[float]:
    """Texts explained a second, ``turns`` times, after one turn that warms up."""
    for turn in range(turns + 1):
        began = time.perf_counter()
        count = read_all(engine, texts if turn else texts[:1], "explain")
        if turn:
            yield count / (time.perf_counter() - began)
