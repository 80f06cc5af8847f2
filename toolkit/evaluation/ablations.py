"""What helps, measured: short training runs that differ from a base in one thing each, judged by the same dev rows.

Posteriors are read in torch, as all rows are compared with each other and none with a file that ships. Thresholds are
cross-fitted, and every row is set against the first one text by text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convert.files import replacing
from toolkit.config import Config, override
from toolkit.contract.lens import Lens
from toolkit.errors import DataError
from toolkit.evaluation import metrics, plots
from toolkit.evaluation.document import Block, Figure, Points, Table, Words, as_markdown, numbered, write_document
from toolkit.evaluation.evaluate import RESAMPLES, predict
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import Rows, load_rows
from toolkit.evaluation.rivals import Progress, Tell
from toolkit.inference.calibration import Calibration
from toolkit.training.config import TrainConfig

if TYPE_CHECKING:
    from toolkit.training.lora import Trainer

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "loss": "loss in nats"}


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
        accuracy_difference, macro_f1_difference, loss_difference: less the first row's on the same dev rows; None in
            the first row.
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
    macro_f1_difference: float | None
    loss_difference: float | None
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class _Read:
    """What a trained row made of the dev rows."""

    posterior: Floats
    coverage: Floats
    steps: int
    examples: int


@dataclass(frozen=True)
class _Scored:
    """How a trained row did, dev row by dev row.

    Attributes:
        correct: whether the top label is a gold one, shape (n,).
        losses: shape (n,).
        predicted, gold: shape (n, labels).
    """

    correct: Bools
    losses: Floats
    predicted: Bools
    gold: Bools

    def figures(self, picked: NDArray[np.intp]) -> dict[str, float]:
        """The figures of the picked dev rows, which come with repeats."""
        drawn = metrics.score_labels(self.predicted[picked], self.gold[picked])
        return {
            "accuracy": float(self.correct[picked].mean()),
            "macro_f1": drawn.macro(np.asarray(self.gold.any(0))),
            "loss": float(self.losses[picked].mean()),
        }


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
    scored = [_score(read, rows) for read in found]
    return [_judge(*row, scored[0]) for row in zip(plan.rows, found, scored, strict=True)]


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


def _score(read: _Read, rows: Rows) -> _Scored:
    return _Scored(
        correct=metrics.top_correct(read.posterior, rows.gold),
        losses=metrics.gold_losses(read.posterior, rows.gold),
        predicted=predict(read.posterior, rows, Calibration())[1],
        gold=rows.gold,
    )


def _judge(variant: Variant, read: _Read, own: _Scored, first: _Scored) -> Result:
    def figures(picked: NDArray[np.intp]) -> dict[str, float]:
        found = own.figures(picked)
        if own is first:
            return found
        base = first.figures(picked)
        return found | {f"{name}_difference": value - base[name] for name, value in found.items()}

    n = len(own.losses)
    found = figures(np.arange(n))
    return Result(
        name=variant.name,
        asks=variant.asks,
        set=variant.set,
        steps=read.steps,
        examples=read.examples,
        n=n,
        accuracy=found["accuracy"],
        macro_f1=found["macro_f1"],
        loss=found["loss"],
        coverage=float(np.median(read.coverage)),
        accuracy_difference=found.get("accuracy_difference"),
        macro_f1_difference=found.get("macro_f1_difference"),
        loss_difference=found.get("loss_difference"),
        intervals=metrics.bootstrap_intervals(figures, n, resamples=RESAMPLES),
    )


def write_table(results: Sequence[Result], folder: Path) -> Path:
    """Write ``ablations.md`` and ``ablations.json``; returns where the first is."""
    for name, content in (("ablations.json", to_json(results)), ("ablations.md", markdown(results))):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return folder / "ablations.md"


def write_report(results: Sequence[Result], folder: Path) -> list[str]:
    """The table and its differences drawn, as page, Markdown, JSON and picture; returns the names of the files."""
    blocks = [*_table(results), *_drawn(results)]
    return write_document(folder, "Ablations on GoEmotions dev", blocks, _to_dict(results))


def to_json(results: Sequence[Result]) -> str:
    """The table as JSON, a row an object."""
    return json.dumps(_to_dict(results), indent=1) + "\n"


def _to_dict(results: Sequence[Result]) -> dict[str, Any]:
    return {"protocol": "ablations", "rows": [asdict(row) for row in results]}


def markdown(results: Sequence[Result]) -> str:
    """The table as Markdown."""
    return as_markdown(_table(results))


def _table(results: Sequence[Result]) -> Iterator[Block]:
    first = results[0]
    yield Words(
        f"GoEmotions dev, {first.n:,} rows, {first.steps:,} updates a row; differences are from the first row, on the "
        "same texts; in brackets 95 % bootstrap intervals over dev rows. Read in torch, uncalibrated; thresholds are "
        "cross-fitted."
    )
    headings = [heading for told in _FIGURES.values() for heading in (told, "difference")]
    keys = [key for figure in _FIGURES for key in (figure, f"{figure}_difference")]
    yield Table(
        ("what", "changes", *headings, "coverage"),
        [(row.name, ", ".join(row.set) or "none", *(_told(row, key) for key in keys), row.coverage) for row in results],
    )
    yield Points([f"{row.name}: {row.asks}" for row in results])


def _told(row: Result, name: str) -> str | None:
    value = getattr(row, name)
    if value is None:
        return None
    low, high = row.intervals[name]
    sign = "+" if name.endswith("difference") else ""
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _difference(row: Result, figure: str) -> plots.Estimate:
    return getattr(row, f"{figure}_difference"), row.intervals[f"{figure}_difference"]


def _drawn(results: Sequence[Result]) -> Iterator[Figure]:
    first, *others = results
    if not others:
        return
    rows = dict(zip(numbered([row.name for row in others]), others, strict=True))
    panels = {told: {name: _difference(row, figure) for name, row in rows.items()} for figure, told in _FIGURES.items()}
    title = f"Every row less {first.name}, on the same dev rows"
    yield Figure("differences.png", plots.forest(panels, title), f"{title}, with 95 % intervals")
