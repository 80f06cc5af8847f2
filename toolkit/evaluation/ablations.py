"""What helps, measured: short training runs that differ from a base in one thing each, judged by the same dev rows.

Posteriors are read in torch, as all rows are compared with each other and none with a file that ships. Thresholds are
cross-fitted, and every row is set against the first one text by text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from convert.files import replacing
from toolkit.config import Config, override
from toolkit.contract.lens import Lens
from toolkit.errors import DataError
from toolkit.evaluation import metrics
from toolkit.evaluation.evaluate import predict
from toolkit.evaluation.metrics import Floats
from toolkit.evaluation.protocols import Rows, load_rows
from toolkit.evaluation.rivals import Progress, Tell
from toolkit.inference.calibration import Calibration
from toolkit.training.config import TrainConfig

if TYPE_CHECKING:
    from toolkit.training.lora import Trainer

Interval = tuple[float, float]


class Variant(Config):
    """One row of the table: what it changes in the base, as ``train --set`` takes it."""

    name: str
    asks: str
    set: tuple[str, ...] = ()


class Ablations(Config):
    """``models/configs/ablations.yaml``: a training configuration and the variants of it, the first unchanged."""

    base: TrainConfig
    rows: tuple[Variant, ...] = Field(min_length=1, max_length=8)

    def configs(self, steps: int | None = None) -> list[TrainConfig]:
        """The configuration of every row, with ``steps`` in the place of the base's ``max_steps``.

        Raises:
            ConfigError: for a row that sets an unknown key or a value of the wrong kind.
        """
        base = self.base if steps is None else self.base.model_copy(update={"max_steps": steps})
        return [override(base, row.set, f"the ablation {row.name!r}") for row in self.rows]


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table.

    Attributes:
        steps: updates; ``examples`` were there to learn from.
        n: dev rows.
        loss: negative log of the mass on the gold labels, in nats, uncalibrated.
        coverage: median share of the whole vocabulary's probability that the labels have.
        accuracy_difference, loss_difference: less the first row's, text by text; None in the first row.
        intervals: 95 % bootstrap intervals over dev rows, of the figures of those names.
    """

    name: str
    asks: str
    set: tuple[str, ...]
    steps: int
    examples: int
    n: int
    accuracy: float
    macro_f1: float
    loss: float
    coverage: float
    accuracy_difference: float | None
    loss_difference: float | None
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class _Read:
    """What a trained row made of the dev rows."""

    posterior: Floats
    coverage: Floats
    steps: int
    examples: int


def run_ablations(
    plan: Ablations, source: Path | None, folder: Path, tell: Tell, progress: Progress, *,
    steps: int | None = None, limit: int | None = None,
) -> list[Result]:  # fmt: skip
    """Train and judge every row, one after another. What is there already is not done again, and a run that was broken
    off goes on from its checkpoint.

    Args:
        folder: where the runs are kept, each named for a hash of its configuration and examples.
        steps: updates of every row, in the place of the configuration's.
        limit: judge the first dev rows only.

    Raises:
        DataError: before anything is trained, where a file that a row learns from is missing.
    """
    configs = plan.configs(steps)
    for config in configs:
        _require_files(config)
    rows = load_rows("goemotions", "dev", source=source, limit=limit)
    found: list[_Read] = []
    for number, (variant, config) in enumerate(zip(plan.rows, configs, strict=True), 1):
        tell(f"Row {number} of {len(configs)}: {variant.name}.")
        found.append(_run_row(config, rows, source, folder, tell, progress))
    return [_judge(variant, read, found[0], rows) for variant, read in zip(plan.rows, found, strict=True)]


def _require_files(config: TrainConfig) -> None:
    wanted = [part for data in config.data.lenses().values() for part in (data.rows, data.chains)]
    wanted += [samples.file for samples in config.data.samples]
    for path in wanted:
        if path is not None and not path.is_file():
            raise DataError(f"{path} is missing.", "The head of the ablations' YAML file says how it is made.")


def _run_row(
    config: TrainConfig, rows: Rows, source: Path | None, folder: Path, tell: Tell, progress: Progress
) -> _Read:
    from toolkit.training.commands import require_torch
    from toolkit.training.data import load_training

    require_torch()
    from toolkit.training.loop import fingerprint

    examples = load_training(config, source)
    place = folder / f"{config.name}-{fingerprint(config, examples)}"
    texts = hashlib.sha256("\0".join(rows.texts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = place / f"dev-{len(rows.texts)}-{texts}.npz"
    if not kept.is_file():
        posterior, coverage, steps = _train(config.model_copy(update={"out": place}), examples, rows, tell, progress)
        with replacing(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, posterior=posterior, coverage=coverage, steps=steps)
    with np.load(kept) as read:
        return _Read(read["posterior"], read["coverage"], int(read["steps"]), len(examples))


def _train(
    config: TrainConfig, examples: list[Any], rows: Rows, tell: Tell, progress: Progress
) -> tuple[Floats, Floats, int]:
    """Train, or go on, or only put back what was trained before, and read the dev rows."""
    from toolkit.training.checkpoint import latest_checkpoint
    from toolkit.training.loop import run
    from toolkit.training.lora import account, prepare

    trainer = prepare(config, examples, [])
    before = latest_checkpoint(config.run_dir)
    if before is not None and before.step == trainer.last_step:
        trainer.optimizer.restore(before)
    else:
        tell(f"It takes about {account(trainer)['minutes']:.0f} minutes on this machine.")
        run(trainer, before is not None, lambda done, total, _: progress(done, total, "training"))
    return *_read(trainer, rows, progress), trainer.last_step


def _read(trainer: Trainer, rows: Rows, progress: Progress) -> tuple[Floats, Floats]:
    from toolkit.evaluation.torch_reading import read_posteriors, write_reasonings

    written = None
    if trainer.config.reasoning_first:
        written = write_reasonings(trainer, rows.texts, Lens.AUTHOR, progress)
    return read_posteriors(trainer, rows.texts, Lens.AUTHOR, progress, written)


def _judge(variant: Variant, read: _Read, first: _Read, rows: Rows) -> Result:
    assert rows.native_gold is not None
    _, predicted, _ = predict(read.posterior, rows, Calibration())
    correct, losses = _by_row(read, rows)
    base_correct, base_losses = _by_row(first, rows)
    is_first = read is first
    apart = {"accuracy_difference": correct - base_correct, "loss_difference": losses - base_losses}
    means = {"accuracy": correct, "loss": losses, **({} if is_first else apart)}

    def macro_f1(picked: Any) -> float:
        return metrics.score_labels(predicted[picked], rows.gold[picked]).macro()

    return Result(
        name=variant.name,
        asks=variant.asks,
        set=variant.set,
        steps=read.steps,
        examples=read.examples,
        n=len(correct),
        accuracy=float(correct.mean()),
        macro_f1=metrics.score_labels(predicted, rows.gold).macro(),
        loss=float(losses.mean()),
        coverage=float(np.median(read.coverage)),
        accuracy_difference=None if is_first else float(apart["accuracy_difference"].mean()),
        loss_difference=None if is_first else float(apart["loss_difference"].mean()),
        intervals={
            "macro_f1": metrics.bootstrap_interval(macro_f1, len(correct), resamples=500),
            **{name: metrics.mean_interval(values) for name, values in means.items()},
        },
    )


def _by_row(read: _Read, rows: Rows) -> tuple[Floats, Floats]:
    """Whether the top label is a gold one, 0 or 1, and the loss; both of shape (n,)."""
    mass = (read.posterior * rows.gold).sum(1)
    return metrics.top_correct(read.posterior, rows.gold).astype(float), -np.log(np.clip(mass, 1e-12, 1.0))


def write_table(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write ``ablations.md`` and ``ablations.json``; returns where."""
    written = []
    for name, content in (("ablations.md", markdown(results)), ("ablations.json", to_json(results))):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
        written.append(folder / name)
    return written


def to_json(results: Sequence[Result]) -> str:
    """The table as JSON, a row an object."""
    return json.dumps({"protocol": "ablations", "rows": [asdict(row) for row in results]}, indent=1) + "\n"


def markdown(results: Sequence[Result]) -> str:
    """The table as Markdown."""
    first = results[0]
    lines = [
        f"GoEmotions dev, {first.n:,} rows, {first.steps:,} updates a row; differences are from the first row, text "
        "by text; in brackets 95 % bootstrap intervals over dev rows. Read in torch, uncalibrated; thresholds are "
        "cross-fitted.",
        "",
        "| what | changes | accuracy | difference | macro-F1 | loss | difference | coverage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        cells = (
            row.name,
            ", ".join(f"`{change}`" for change in row.set) or "none",
            _told(row, "accuracy"),
            _told(row, "accuracy_difference"),
            _told(row, "macro_f1"),
            _told(row, "loss"),
            _told(row, "loss_difference"),
            f"{row.coverage:.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {row.name}: {row.asks}" for row in results)]) + "\n"


def _told(row: Result, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return "–"
    low, high = row.intervals[name]
    sign = "+" if name.endswith("difference") else ""
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
