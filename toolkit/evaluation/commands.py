"""`emotion-lrm evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from toolkit.contract.lens import Lens, parse_lens
from toolkit.errors import UsageError
from toolkit.evaluation.protocols import PROTOCOLS, Rows, load_rows
from toolkit.settings import Progress, Settings, is_quiet, model_options, open_model

if TYPE_CHECKING:
    from toolkit.evaluation.evaluate import Judged, Reading

NATIVE = tuple(lens.native for lens in Lens)


@click.command()
@click.argument("protocol")
@click.option("--split", type=click.Choice(("train", "dev", "test")), default="dev", show_default=True)
@click.option("--source", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the corpora.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Judge the first N rows only.")
@click.option("--compare", metavar="MODEL", multiple=True, help="Judge a further model by the same rows; repeatable.")
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
    help="With goemotions or empathetic on all of dev: write what ships as calibration.json.",
)
@model_options
@click.pass_context
def evaluate(
    ctx: click.Context,
    protocol: str,
    split: str,
    source: Path | None,
    limit: int | None,
    compare: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    calibration: Path | None,
    settings: Settings,
) -> None:
    """Measure a model by PROTOCOL, or on a file of your own.

    PROTOCOL is goemotions, ekman, sentiment, shared10, empathetic, empathetic10, or a CSV, TSV or JSONL file with the
    columns text and emotion.
    Fast mode gives the same figures several times faster, without those of the reasoning.

    \b
    emotion-lrm evaluate goemotions --split dev --mode fast
    emotion-lrm evaluate goemotions --limit 500 --json
    emotion-lrm evaluate my-labels.csv --taxonomy ekman
    emotion-lrm evaluate goemotions --compare other.gguf --report out
    """
    if calibration and (protocol not in NATIVE or (split, limit) != ("dev", None)):
        raise UsageError(
            f"Calibration is fitted on all of the dev split of {' or '.join(NATIVE)}.", "Leave --limit and --split out."
        )
    if report:
        from toolkit.evaluation.plots import prepare_folder

        prepare_folder(report)
    rows = _load(ctx, protocol, split, source, limit, settings)
    settings = settings.model_copy(update={"lens": str(rows.lens)})
    first, reading, temperature = _judge(rows, settings)
    others = [_judge(rows, settings.model_copy(update={"model": name, "adapter": None}))[0] for name in compare]
    _print(first, others, as_json)
    if report:
        from toolkit.evaluation.report import write_report

        write_report((first, *others), report)
        if not is_quiet():
            click.echo(f"The report is {report / 'report.html'}.", err=True)
    if calibration and rows.native_gold is not None:
        from toolkit.evaluation.calibrate import add_calibration, fit_calibration
        from toolkit.inference.posterior import apply_temperature

        raw = apply_temperature(reading.posterior, 1.0 / temperature)
        fitted = fit_calibration(raw, rows.native_gold, rows.lens, f"{protocol} {split}")
        add_calibration(fitted, rows.lens, calibration)


def _judge(rows: Rows, settings: Settings) -> tuple[Judged, Reading, float]:
    """What a model is worth, what it read, and the temperature that its readings already have in them."""
    from toolkit.evaluation.evaluate import judge, read

    with open_model(settings) as model, Progress() as progress:
        reading = read(model, rows, progress)
        judged = judge(model, rows, reading, mode=settings.mode, progress=progress)
        return judged, reading, model.calibration.of(rows.lens).temperature


def _print(first: Judged, others: list[Judged], as_json: bool) -> None:
    """The evaluation on standard output; in JSON those of further models stand under ``compared``."""
    from toolkit.evaluation.table import print_evaluation

    if as_json:
        further = {"compared": [one.evaluation.to_dict() for one in others]} if others else {}
        click.echo(json.dumps(first.evaluation.to_dict() | further, ensure_ascii=False))
        return
    for one in (first, *others):
        print_evaluation(one.evaluation, sys.stdout)


def _load(
    ctx: click.Context, protocol: str, split: str, source: Path | None, limit: int | None, settings: Settings
) -> Rows:
    """The rows; a protocol fixes lens and taxonomy, so only a flag, not the environment, may contradict it."""

    def free(name: str) -> bool:
        return protocol not in PROTOCOLS or ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

    lens = parse_lens(settings.lens) if free("lens") else None
    taxonomy = settings.taxonomy if free("taxonomy") else None
    return load_rows(protocol, split, source=source, limit=limit, lens=lens, taxonomy=taxonomy)
