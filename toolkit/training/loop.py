"""The loop of every training run: steps, log, checkpoints, resume."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.contract.example import Example
from toolkit.errors import UsageError
from toolkit.training.checkpoint import CHECKPOINT, Checkpoint, latest_checkpoint, save_checkpoint
from toolkit.training.config import RunConfig

Report = Callable[[int, int, dict[str, float]], None]


class Optimizer(Protocol):
    """What the loop wants of an optimizer."""

    def restore(self, checkpoint: Checkpoint) -> int:
        """Put the state back; returns the step to go on with."""
        ...

    def snapshot(self, step: int) -> Checkpoint:
        """Everything that a resume needs after ``step`` updates."""
        ...


class Trainable(Protocol):
    """A loaded model, the data it learns from, and how it takes a step."""

    last_step: int
    history: list[dict[str, float]]

    @property
    def config(self) -> RunConfig:
        """What the run was told."""
        ...

    @property
    def optimizer(self) -> Optimizer:
        """Holds all that changes."""
        ...

    def batches(self, start: int) -> Iterator[list[Any]]:
        """The batches of steps ``start`` to the last."""
        ...

    def step(self, number: int, rows: list[Any]) -> dict[str, float]:
        """One update; returns what goes into the log."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Figures on the dev rows."""
        ...

    def save(self, folder: Path, metrics: dict[str, Any]) -> Path:
        """Write what was learned into the run's folder; returns where."""
        ...


def run(trainer: Trainable, resume: bool, report: Report) -> dict[str, Any]:
    """Train to the end and write what was learned into ``run_dir``.

    ``report(step, total, record)`` is called after every step. Returns the final metrics.

    Raises:
        UsageError: for a run folder that already holds checkpoints when ``resume`` is off, or none when it is on.
    """
    folder = trainer.config.run_dir
    start = _begin(trainer, folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(trainer.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    began, record = time.monotonic(), {}
    with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
        for step, rows in enumerate(trainer.batches(start), start):
            record = trainer.step(step, rows)
            done = step + 1
            if done % trainer.config.eval_every == 0 or done == trainer.last_step:
                record |= trainer.evaluate()
                trainer.history.append({"step": done, **record})
            log.write(json.dumps({"step": done, "seconds": round(time.monotonic() - began, 1), **record}) + "\n")
            log.flush()
            if done % trainer.config.checkpoint_every == 0 or done == trainer.last_step:
                save_checkpoint(folder, trainer.optimizer.snapshot(done))
            report(done, trainer.last_step, record)
    metrics = {"steps": trainer.last_step, "minutes": round((time.monotonic() - began) / 60, 1), **record}
    trainer.save(folder, metrics)
    return metrics


def finish(trainer: Trainable, report: Report) -> None:
    """Train to the end, from the run's checkpoint where there is one, and then leave none behind."""
    folder = trainer.config.run_dir
    run(trainer, latest_checkpoint(folder) is not None, report)
    (folder / CHECKPOINT).unlink()


def fingerprint(config: RunConfig, examples: Sequence[Example]) -> str:
    """Twelve digits for a configuration, wherever it writes to, and the examples in their order."""
    digest = hashlib.sha256(config.model_dump_json(exclude={"out", "name"}).encode())
    for e in examples:
        told = [e.text, e.labels, str(e.lens), dict(e.soft or {}), e.weight, e.reasoning]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()[:12]


def _begin(trainer: Trainable, folder: Path, resume: bool) -> int:
    found = latest_checkpoint(folder)
    if resume and found is None:
        raise UsageError(f"There is no checkpoint in {folder} to resume from.", "Start without --resume.")
    if not resume and found is not None:
        raise UsageError(f"{folder} already holds a run.", "Go on with --resume, or choose another --set out=DIR.")
    return trainer.optimizer.restore(found) if found else 0
