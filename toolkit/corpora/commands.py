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

    Writes goemotions_clean.jsonl and goemotions_clean_report.json, which counts every reason and shows examples.
    """
    from toolkit.corpora.jsonl import write_examples
    from toolkit.corpora.prepare import clean_training, write_report

    examples, report = clean_training(_settings(config), source, limit)
    write_examples(out / "goemotions_clean.jsonl", examples)
    write_report(out / "goemotions_clean_report.json", report.to_dict())
    click.echo(f"{report.kept:,} of {report.read:,} rows kept; written to {out}.", err=True)
    _print({"read": report.read, "kept": report.kept, "dropped": dict(report.dropped)})


@data.command()
@_shared
def cot(source: Path | None, out: Path, config: Path | None, limit: int | None) -> None:
    """Write reasoning for clean GoEmotions texts with the template teacher.

    Writes goemotions_cot_train.jsonl, goemotions_cot_val.jsonl and goemotions_cot_report.json, which counts every
    rejection. Needs scikit-learn: pip install ".[data]".
    """
    _require_sklearn()
    from toolkit.corpora.cot import write_chains
    from toolkit.corpora.prepare import clean_training, write_report

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


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise EmotionLRMError(
            "Writing chains needs the package scikit-learn.", 'Install it with: pip install ".[data]"'
        ) from None


def _print(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result))
