"""`emotion-lrm data`: from raw corpora to clean examples and examples with reasoning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.errors import EmotionLRMError

if TYPE_CHECKING:
    from toolkit.corpora.prepare import DataConfig


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands on corpora take."""
    for option in (
        click.option("--limit", type=click.IntRange(min=1), help="Read only the first N training rows."),
        click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="YAML file; the default ships."),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("data/processed"),
            show_default=True,
            help="Folder for what is written.",
        ),
        click.option("--source", type=click.Path(file_okay=False, path_type=Path), help="Folder with the corpora."),
    ):
        command = option(command)
    return command


@click.group()
def data() -> None:
    """Prepare the corpora and write reasoning for them."""


@data.command()
@_shared
def prepare(source: Path | None, out: Path, config: Path | None, limit: int | None) -> None:
    """Clean the GoEmotions train split.

    Writes goemotions_clean.jsonl, goemotions_clean_flags.jsonl with linguistic scores, and the report, which counts
    every reason and shows examples, as goemotions_clean_report.json and .html. What is there already is not done again.
    Needs scikit-learn and matplotlib: pip install ".[data]".
    """
    _require_sklearn("Scoring texts")
    from toolkit.corpora.prepared import prepare as write_clean

    report, before = write_clean(_settings(config), source, out, limit)
    done = f"already in {out}" if before else f"written to {out}"
    click.echo(f"{report['kept']:,} of {report['read']:,} rows kept; {done}.", err=True)
    if report["damaged_rows"]["count"]:
        click.echo(f"{report['damaged_rows']['count']:,} damaged rows were passed over.", err=True)
    _print({name: report[name] for name in ("read", "kept", "dropped")})


@data.command()
@_shared
def explore(source: Path | None, out: Path, config: Path | None, limit: int | None) -> None:  # noqa: ARG001
    """Draw what the corpora hold.

    Writes goemotions_author_distribution.png, goemotions_balanced_distribution.png, goemotions_cooccurrence.png,
    empathetic_reader_distribution.png, text_length_distribution.png, and all of them in explore.html, for the corpora
    that are there. Needs matplotlib: pip install ".[data]".
    """
    from toolkit.corpora.explore import explore as draw

    result = draw(source, out, limit)
    for name in result["missing"]:
        click.echo(f"{name}: no train split there, left out.", err=True)
    click.echo(f"{len(result['written'])} files written to {out}.", err=True)
    _print(result)


@data.command()
@_shared
def cot(source: Path | None, out: Path, config: Path | None, limit: int | None) -> None:
    """Write reasoning for clean GoEmotions texts with the template teacher.

    Writes goemotions_cot_train.jsonl, goemotions_cot_val.jsonl and goemotions_cot_report.json, which counts every
    rejection. Needs scikit-learn: pip install ".[data]".
    """
    _require_sklearn("Writing chains")
    from toolkit.corpora.cot import write_chains
    from toolkit.corpora.prepare import clean_training
    from toolkit.corpora.prepared import write_report

    settings = _settings(config)
    examples, report = clean_training(settings, source, limit)
    click.echo(f"{report.kept:,} clean rows; writing chains.", err=True)
    reports = write_chains(examples, source, out, settings.cot)
    write_report(out / "goemotions_cot_report.json", reports)
    _print({split: {k: r[k] for k in ("offered", "written", "distinct_openings")} for split, r in reports.items()})


def _settings(path: Path | None) -> DataConfig:
    from toolkit.assets import asset
    from toolkit.config import load_config
    from toolkit.corpora.prepare import DataConfig

    return load_config(DataConfig, path or asset("data", "configs", "goemotions.yaml"))


def _require_sklearn(work: str) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise EmotionLRMError(
            f"{work} needs the package scikit-learn.", 'Install it with: pip install ".[data]"'
        ) from None


def _print(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result))
