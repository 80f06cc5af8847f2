"""`emotion-lrm evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from toolkit.contract.lens import Lens, parse_lens
from toolkit.errors import UsageError
from toolkit.evaluation.protocols import PROTOCOLS, Rows, load_rows
from toolkit.settings import Progress, Settings, model_options, open_model

NATIVE = tuple(lens.native for lens in Lens)


@click.command()
@click.argument("protocol")
@click.option("--split", type=click.Choice(("train", "dev", "test")), default="dev", show_default=True)
@click.option("--source", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the corpora.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Judge the first N rows only.")
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
    """
    from toolkit.evaluation.evaluate import judge, read
    from toolkit.evaluation.table import print_evaluation

    if calibration and (protocol not in NATIVE or (split, limit) != ("dev", None)):
        raise UsageError(
            f"Calibration is fitted on all of the dev split of {' or '.join(NATIVE)}.", "Leave --limit and --split out."
        )
    rows = _load(ctx, protocol, split, source, limit, settings)
    with open_model(settings) as model, Progress() as progress:
        reading = read(model, rows, progress)
        judged = judge(model, rows, reading, mode=settings.mode, progress=progress)
        temperature = model.calibration.of(rows.lens).temperature
    if as_json:
        click.echo(json.dumps(judged.to_dict(), ensure_ascii=False))
    else:
        print_evaluation(judged, sys.stdout)
    if calibration and rows.native_gold is not None:
        from toolkit.evaluation.calibrate import add_calibration, fit_calibration
        from toolkit.inference.posterior import apply_temperature

        raw = apply_temperature(reading.posterior, 1.0 / temperature)
        fitted = fit_calibration(raw, rows.native_gold, rows.lens, f"{protocol} {split}")
        add_calibration(fitted, rows.lens, calibration)


def _load(
    ctx: click.Context, protocol: str, split: str, source: Path | None, limit: int | None, settings: Settings
) -> Rows:
    """The rows; a protocol fixes lens and taxonomy, so only a flag, not the environment, may contradict it."""

    def free(name: str) -> bool:
        return protocol not in PROTOCOLS or ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

    lens = parse_lens(settings.lens) if free("lens") else None
    taxonomy = settings.taxonomy if free("taxonomy") else None
    return load_rows(protocol, split, source=source, limit=limit, lens=lens, taxonomy=taxonomy)
