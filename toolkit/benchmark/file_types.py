"""Which file type of a model is the fastest here among those that lose nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.apps.quality import Bounds, Loss, judge_file, loss_against
from toolkit.benchmark.rounds import Report, spread
from toolkit.benchmark.tune import rates
from toolkit.errors import EmotionLRMError
from toolkit.evaluation.protocols import Rows
from toolkit.inference.engine import Engine

CANDIDATES = ("BF16", "F16", "Q8_0", "Q4_0_MIXED")
_TEXTS, _ROUNDS, _CLEARLY = 48, 3, 1.03


@dataclass(frozen=True, slots=True)
class Tried:
    """One file type: texts explained a second, and what it has lost against the reference."""

    file_type: str
    texts_per_second: float
    loss: Loss

    @property
    def refused(self) -> bool:
        """Whether it has lost more than it may."""
        return not self.loss.within(Bounds())

    def to_dict(self) -> dict[str, Any]:
        """As ``bench --tune --json`` prints it."""
        return {**asdict(self), "refused": self.refused}


def try_file_types(
    paths: Mapping[str, Path], reference: Path, rows: Rows, texts: Sequence[str], progress: Report | None = None
) -> list[Tried]:
    """Judge and time the same model in several file types, one at a time, so that memory holds a single one.

    Args:
        paths: the GGUF by file type.
        reference: what the others lose, they lose against this file.
        rows: labelled texts to judge by.
        texts: what is read for the time.
    """
    sample = spread(texts, _TEXTS)
    speeds: dict[str, list[float]] = {name: [] for name in paths}
    total = (_ROUNDS + 1) * len(paths)
    for turn in range(_ROUNDS * len(paths)):  # in turns, so that a busy machine meets them alike
        name = list(paths)[turn % len(paths)]
        _tell(progress, turn, total, f"timing {name}")
        engine = Engine(paths[name])
        try:
            speeds[name] += rates(engine, sample, turns=1)
        finally:
            engine.close()
    whole = judge_file(reference, rows)
    found = []
    for done, (name, path) in enumerate(paths.items(), _ROUNDS * len(paths)):
        _tell(progress, done, total, f"judging {name}")
        loss = loss_against(whole, whole if path == reference else judge_file(path, rows))
        found.append(Tried(name, statistics.median(speeds[name]), loss))
    _tell(progress, total, total, "file types")
    return found


def choose(found: Sequence[Tried], default: str) -> Tried:
    """The fastest that loses nothing; another than the default one only where it is clearly faster.

    Raises:
        EmotionLRMError: where every one loses too much.
    """
    allowed = [one for one in found if not one.refused]
    if not allowed:
        bounds = Bounds()
        raise EmotionLRMError(
            f"Every file type loses more than {bounds.top1} of the top-1 accuracy or {bounds.macro_f1} of macro-F1.",
            "Name others with --types.",
        )
    best = max(allowed, key=lambda one: one.texts_per_second)
    usual = next((one for one in allowed if one.file_type == default), best)
    return best if best.texts_per_second > _CLEARLY * usual.texts_per_second else usual


def _tell(progress: Report | None, done: int, total: int, step: str) -> None:
    if progress is not None:
        progress(done, total, step)
