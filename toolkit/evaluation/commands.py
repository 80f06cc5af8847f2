"""`emotion-lrm evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolkit.assets import asset
from toolkit.config import load_config
from toolkit.contract.lens import Lens, parse_lens
from toolkit.errors import DataError, UsageError
from toolkit.evaluation.protocols import PROTOCOLS, Rows, load_rows
from toolkit.settings import Progress, Settings, is_quiet, model_options, open_model

if TYPE_CHECKING:
    from toolkit.evaluation.evaluate import Judged
    from toolkit.evaluation.metrics import Floats

NATIVE = tuple(lens.native for lens in Lens)
ECHO_ROOM, ABLATIONS, IDENTITY = "echo-room", "ablations", "identity-terms"


@dataclass(frozen=True, slots=True)
class Seen:
    """A model judged by some rows.

    Attributes:
        posterior: native and calibrated, shape (n, labels).
        temperature: what it was calibrated with.
        lenses: those that the model knows.
    """

    judged: Judged
    posterior: Floats
    temperature: float
    lenses: tuple[Lens, ...]


@click.command()
@click.argument("protocol")
@click.option("--split", type=click.Choice(("train", "dev", "test")), default="dev", show_default=True)
@click.option("--source", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the corpora.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Judge the first N rows only.")
@click.option(
    "--compare",
    metavar="MODEL",
    multiple=True,
    help="Judge a further model, or an encoder's folder or zip, by the same rows; repeatable.",
)
@click.option("--baselines", is_flag=True, help="Train simpler models on the train split and judge them beside.")
@click.option("--allow-overlap", is_flag=True, help="Judge by rows that were learned from, and mark the figures.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write report.html, report.md, report.json and pictures there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--fit-calibration",
    "calibration",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With goemotions or empathetic on all of dev: write what ships as calibration.json; for a model of two lenses "
    "goemotions adds the noise line against the default model.",
)
@click.option(
    "--steps", type=click.IntRange(1), metavar="N", help="echo-room, ablations: updates of each training run."
)
@click.option("--epochs", type=click.FloatRange(0, min_open=True), metavar="X", help="echo-room: epochs of each run.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="YAML",
    help="ablations: in place of what ships.",
)
@model_options
def evaluate(
    protocol: str,
    split: str,
    source: Path | None,
    limit: int | None,
    compare: tuple[str, ...],
    baselines: bool,
    allow_overlap: bool,
    report: Path | None,
    as_json: bool,
    calibration: Path | None,
    settings: Settings,
    **budget: Any,
) -> None:
    """Measure a model by PROTOCOL, or on a file of your own.

    PROTOCOL is goemotions, ekman, sentiment, shared10, empathetic, empathetic10, or a CSV, TSV or JSONL file with the
    columns text and emotion; with --lens reader the column reader_emotion counts in a file that has it. Fast mode gives
    the same figures several times faster, without those of the reasoning.

    echo-room and ablations train models of their own, which takes hours, and go on where they were broken off:
    echo-room is The Echo Room's protocol on the splits that are there; ablations tries one change of the training at a
    time and writes a table. identity-terms swaps who is named in sentences that are otherwise the same, and tells how
    far the readings change, beside words that name no identity.

    \b
    emotion-lrm evaluate goemotions --split dev --mode fast
    emotion-lrm evaluate goemotions --limit 500 --json
    emotion-lrm evaluate my-labels.csv --taxonomy ekman
    emotion-lrm evaluate goemotions --compare other.gguf --report out
    emotion-lrm evaluate goemotions --mode fast --baselines
    emotion-lrm evaluate echo-room --epochs 1
    emotion-lrm evaluate identity-terms
    """
    if report:
        from toolkit.evaluation.plots import prepare_folder

        prepare_folder(report)
    if protocol in (ECHO_ROOM, ABLATIONS):
        _refuse(protocol, compare=compare, baselines=baselines, fit_calibration=calibration, model=_typed("model"))
        run, unknown = (_echo_room, "config") if protocol == ECHO_ROOM else (_ablations, "epochs")
        _refuse(protocol, **{unknown: budget.pop(unknown)})
        run(source, limit, report, as_json, **budget)
        return
    _refuse(protocol, **budget)
    if protocol == IDENTITY:
        _refuse(protocol, compare=compare, baselines=baselines, fit_calibration=calibration, limit=limit)
        _identity_terms(settings, report, as_json)
        return
    if calibration and (protocol not in NATIVE or (split, limit) != ("dev", None)):
        raise UsageError(
            f"Calibration is fitted on all of the dev split of {' or '.join(NATIVE)}.", "Leave --limit and --split out."
        )
    rows = _load(protocol, split, source, limit, settings)
    settings = settings.model_copy(update={"lens": str(rows.lens)})
    met = _overlap_of_baselines(rows, allow_overlap) if baselines else 0
    seen = _judge(rows, settings, allow_overlap)
    first = seen.judged
    others = [_judge(rows, _other(settings, name), allow_overlap).judged for name in compare]
    if baselines:
        first = _with_baselines(first, rows, source, met)
    _print(first, others, as_json)
    if report:
        _write_report((first, *others), report)
    if calibration:
        _calibrate(seen, rows, settings, f"{protocol} {split}", calibration)


def _judge(rows: Rows, settings: Settings, allow_overlap: bool) -> Seen:
    """Let a model read the rows, and judge it.

    Raises:
        UsageError: where it has learned from them, and that is not allowed.
    """
    from toolkit.evaluation.evaluate import judge, read
    from toolkit.evaluation.overlap import learned_by, require_apart

    with _open(settings) as model, Progress() as progress:
        met = require_apart(model.name, rows, learned_by(model, settings.model), allow_overlap)
        reading = read(model, rows, progress)
        judged = judge(model, rows, reading, mode=settings.mode, progress=progress)
        judged = replace(judged, evaluation=replace(judged.evaluation, overlap=met))
        return Seen(judged, reading.posterior, model.calibration.of(rows.lens).temperature, model.lenses)


def _other(settings: Settings, name: str | None) -> Settings:
    """The same settings for another model; None is the default one."""
    return settings.model_copy(update={"model": name, "adapter": None})


def _calibrate(seen: Seen, rows: Rows, settings: Settings, fitted_on: str, path: Path) -> None:
    """Write what was fitted for the lens of ``rows``; for a model of both lenses the noise line too."""
    from toolkit.evaluation.calibrate import add_calibration, fit_calibration
    from toolkit.inference.divergence import noise_line
    from toolkit.inference.posterior import apply_temperature

    assert rows.native_gold is not None
    raw = apply_temperature(seen.posterior, 1.0 / seen.temperature)
    fitted, line = fit_calibration(raw, rows.native_gold, rows.lens, fitted_on), None
    if rows.lens is Lens.AUTHOR and Lens.READER in seen.lenses:
        _say("Reading the same rows with the default model, for the noise line.")
        alone = _judge(rows, _other(settings, None).model_copy(update={"mode": "fast"}), True)
        line = noise_line(apply_temperature(raw, fitted["temperature"]), alone.posterior)
    add_calibration(fitted, rows.lens, path, line)


def _identity_terms(settings: Settings, report: Path | None, as_json: bool) -> None:
    from toolkit.evaluation.identity import effect_blocks, term_effects, write_report
    from toolkit.evaluation.table import print_blocks

    with open_model(settings) as model:
        effects = term_effects(model, parse_lens(settings.lens))
    told = {"model": model.name, "lens": settings.lens, **effects.to_dict()}
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        print_blocks(effect_blocks(effects, model.name), sys.stdout)
    if report:
        write_report(effects, told, report)
        _say_report(report)


def _open(settings: Settings) -> AbstractContextManager[Any]:
    """A model, or an encoder where its folder or zip is named."""
    from toolkit.training.encoder_model import is_encoder

    if settings.model and is_encoder(settings.model):
        from toolkit.evaluation.rivals import open_encoder

        return open_encoder(settings.model)
    return open_model(settings)


def _overlap_of_baselines(rows: Rows, allowed: bool) -> int:
    """How many rows the baselines will have learned from, said before they are trained."""
    from toolkit.evaluation.overlap import require_apart
    from toolkit.training.learned import Learned

    return require_apart("Every baseline", rows, Learned(frozenset({f"{rows.lens.native} train"})), allowed)


def _with_baselines(judged: Judged, rows: Rows, source: Path | None, overlap: int) -> Judged:
    from toolkit.evaluation.baselines import figures, judge_baselines

    with Progress() as progress:
        found = judge_baselines(rows, source, _kept(), _tell, progress)
    told = {name: one and {**figures(one.evaluation), "overlap": overlap} for name, one in found.items()}
    return replace(judged, evaluation=replace(judged.evaluation, baselines=told))


def _echo_room(source: Path | None, limit: int | None, report: Path | None, as_json: bool, **budget: Any) -> None:
    from toolkit.evaluation.echo_room import agreed_task, echo_room_blocks, per_rater_task, run_task
    from toolkit.evaluation.report import write_report
    from toolkit.evaluation.table import print_blocks

    tasks = [agreed_task(source)]
    try:
        tasks.append(per_rater_task(source))
    except DataError as error:
        tasks[0].missing.append(f"{error} The per-rater variant is left out.")
    for line in tasks[0].missing:
        _tell(line)
    found = []
    for task in tasks:
        with Progress() as progress:
            found.append(run_task(task, _kept(), _tell, progress, limit=limit, **budget))
    told = [outcome.to_dict() for outcome in found]
    blocks = list(echo_room_blocks(told))
    outcome = told[0] | {"per_rater": told[1] if len(told) > 1 else None}
    if as_json:
        click.echo(json.dumps(outcome, ensure_ascii=False))
    else:
        print_blocks(blocks, sys.stdout)
    if report:
        judged = (found[0].ours, *filter(None, found[0].rivals.values()))
        write_report(judged, report, blocks, {"outcome": outcome})
        _say_report(report)


def _ablations(
    source: Path | None, limit: int | None, report: Path | None, as_json: bool, steps: int | None, config: Path | None
) -> None:
    from toolkit.evaluation.ablations import Ablations, markdown, run_ablations, to_json, write_report, write_table

    plan = load_config(Ablations, config or asset("models", "configs", "ablations.yaml"))
    folder = Path("models/runs/ablations")
    with Progress() as progress:
        results = run_ablations(plan, source, folder, _say, progress, steps=steps, limit=limit)
    click.echo(to_json(results) if as_json else markdown(results), nl=False)
    _say(f"The table is {write_table(results, folder)}.")
    if report:
        write_report(results, report)
        _say_report(report)


def _write_report(judged: Sequence[Judged], folder: Path) -> None:
    from toolkit.evaluation.report import write_report

    write_report(judged, folder)
    _say_report(folder)


def _say_report(folder: Path) -> None:
    _say(f"The report is {folder / 'report.html'}.")


def _refuse(protocol: str, **options: Any) -> None:
    """Refuse options that have no meaning for a protocol.

    Raises:
        UsageError: naming the first.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"{protocol} takes no --{name.replace('_', '-')}.", "Leave it out.")


def _typed(name: str) -> bool:
    """Whether an option stands on the command line, and not in the environment or a file alone."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _kept() -> Path:
    """Where what evaluations train is kept."""
    from toolkit.inference.store import models_folder

    return models_folder().parent / "trained"


def _tell(line: str) -> None:
    """What is to be known of the result, or of hours to come, with ``-q`` too."""
    click.echo(line, err=True)


def _say(line: str) -> None:
    if not is_quiet():
        click.echo(line, err=True)


def _print(first: Judged, others: list[Judged], as_json: bool) -> None:
    """The evaluation on standard output; in JSON those of further models stand under ``compared``."""
    from toolkit.evaluation.table import print_evaluation

    if as_json:
        further = {"compared": [one.evaluation.to_dict() for one in others]} if others else {}
        click.echo(json.dumps(first.evaluation.to_dict() | further, ensure_ascii=False))
        return
    for one in (first, *others):
        print_evaluation(one.evaluation, sys.stdout)


def _load(protocol: str, split: str, source: Path | None, limit: int | None, settings: Settings) -> Rows:
    """The rows; a protocol fixes lens and taxonomy, so only a flag, not the environment, may contradict it."""
    fixed = protocol in PROTOCOLS
    lens = parse_lens(settings.lens) if not fixed or _typed("lens") else None
    taxonomy = settings.taxonomy if not fixed or _typed("taxonomy") else None
    return load_rows(protocol, split, source=source, limit=limit, lens=lens, taxonomy=taxonomy)
