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
@click.option("--embeddings/--no-embeddings", default=None, help="Check by embeddings; wins over embeddings.check.")
def prepare(source: Path | None, out: Path, config: Path | None, limit: int | None, embeddings: bool | None) -> None:
    """Clean the GoEmotions train split.

    Writes goemotions_clean.jsonl, its parts goemotions_clean_train.jsonl and goemotions_clean_val.jsonl,
    goemotions_clean_flags.jsonl with scores and flags, and the report, which counts every reason and shows examples,
    as goemotions_clean_report.json and .html. What is there already is not done again. The official dev and test splits
    are only read, never cleaned. Needs scikit-learn and matplotlib: pip install ".[data]"; for --embeddings also
    sentence-transformers and cleanlab: pip install ".[embeddings]".
    """
    _require_sklearn("Scoring texts")
    from toolkit.corpora.prepared import prepare as write_clean

    settings = _settings(config)
    if embeddings is not None:
        checked = settings.embeddings.model_copy(update={"check": embeddings})
        settings = settings.model_copy(update={"embeddings": checked})

    def say(done: int, total: int) -> None:
        click.echo(f"{done:,} of {total:,} texts embedded.", err=True)

    report, before = write_clean(settings, source, out, limit, say)
    done = f"already in {out}" if before else f"written to {out}"
    click.echo(f"{report['kept']:,} of {report['read']:,} rows kept; {done}.", err=True)
    _say_damage(report["damaged_rows"]["count"])
    flags = {name: found["count"] for name, found in report["flags"].items()}
    _print({**{name: report[name] for name in ("read", "kept", "dropped", "parts")}, "flags": flags})


@data.command()
@_shared
def explore(source: Path | None, out: Path, config: Path | None, limit: int | None) -> None:
    """Draw what the corpora hold.

    Writes goemotions_author_distribution.png, goemotions_balanced_distribution.png, goemotions_cooccurrence.png,
    empathetic_reader_distribution.png, text_length_distribution.png, and all of them in explore.html, for the corpora
    that are there. Of the configuration it reads neutral.cap for the balanced picture, where null means 10,000. Needs
    matplotlib: pip install ".[data]".
    """
    from toolkit.corpora.explore import CAP
    from toolkit.corpora.explore import explore as draw

    cap = _settings(config).neutral.cap
    result = draw(source, out, limit, CAP if cap is None else cap)
    for name in result["missing"]:
        click.echo(f"{name}: no train split there, left out.", err=True)
    click.echo(f"{len(result['written'])} files written to {out}.", err=True)
    _say_damage(result["damaged_rows"])
    _print(result)


@data.command()
@click.option(
    "--lens", type=click.Choice(["author", "reader"]), default="author", show_default=True, help="Whose texts."
)
@click.option("--samples", is_flag=True, help="Write for the sample texts that ship, in place of a corpus.")
@click.option(
    "--teacher",
    default="template",
    show_default=True,
    help="Who writes: template, the URL of an OpenAI-compatible endpoint, or a GGUF file.",
)
@click.option("--teacher-model", help="The model that the endpoint is asked for; without it, the first that it lists.")
@click.option("--max-tokens-total", type=click.IntRange(min=1), help="Stop asking when so many tokens are spent.")
@click.option("--show", type=click.IntRange(min=1), help="Print N chains and what the gate said, as Markdown.")
@_shared
def cot(
    lens: str,
    samples: bool,
    teacher: str,
    teacher_model: str | None,
    max_tokens_total: int | None,
    show: int | None,
    **shared: Any,
) -> None:
    """Write reasoning for labelled texts: a teacher writes, one gate judges.

    For clean GoEmotions comments, or with --lens reader for EmpatheticDialogues situations, writes
    goemotions_cot_train.jsonl, goemotions_cot_val.jsonl, goemotions_cot_report.json, which counts every rejection and
    what cleaning did, and goemotions_cot_refused.jsonl with the chains that the gate refused (empathetic_ in place of
    goemotions_).

    The key of an endpoint is read from EMOTION_LRM_TEACHER_KEY and nowhere else. What a model answered is kept in
    goemotions_cot_answers.jsonl, so that nothing is asked twice: after an interruption the same command goes on.
    Needs scikit-learn, and for an endpoint httpx: pip install ".[data]".

    \b
    emotion-lrm data cot
    emotion-lrm data cot --teacher http://127.0.0.1:8080/v1 --max-tokens-total 500000
    emotion-lrm data cot --lens reader --teacher teacher.gguf --limit 200
    """
    _require_sklearn("Writing chains")
    from toolkit.contract.lens import Lens
    from toolkit.corpora.chain_texts import NON_COMMERCIAL, load_samples, load_texts
    from toolkit.corpora.open_teacher import open_teacher
    from toolkit.corpora.prepared import CACHE
    from toolkit.corpora.reasoning import as_markdown, write_reasoning

    out, which = shared["out"], Lens(lens)
    name = "goemotions" if which is Lens.AUTHOR else "empathetic"
    settings = _settings(shared["config"], f"{name}.yaml")
    asked = {"model": teacher_model, "max_tokens_total": max_tokens_total}
    ask = settings.cot.ask.model_copy(update={key: value for key, value in asked.items() if value is not None})
    answers = out / f"{f'samples_{lens}' if samples else name}_cot_answers.jsonl"
    with open_teacher(teacher, ask, answers) as teacher_for:
        limit, cleaning = shared["limit"], None
        if samples:
            texts = load_samples(which, limit)
        else:
            texts, cleaning = load_texts(which, settings, shared["source"], limit, out / CACHE)
            _say_damage(cleaning.damage.count)
        click.echo(f"{len(texts.train):,} texts; writing chains.", err=True)
        notes = [NON_COMMERCIAL] if texts.name == "empathetic" else []
        result = write_reasoning(texts, out, settings.cot, teacher_for, notes, cleaning)
    for line in [*notes, *(report.stopped for _, report in result.values() if report.stopped)]:
        click.echo(line, err=True)
    if show:
        chains, report = result["train"]
        click.echo("\n".join(as_markdown(chains, report.refusals, show)))
        return
    keys = ("offered", "written", "distinct_openings", "usage")
    _print({split: {k: report.to_dict()[k] for k in keys} for split, (_, report) in result.items()})


def _settings(path: Path | None, shipped: str = "goemotions.yaml") -> DataConfig:
    from toolkit.assets import asset
    from toolkit.config import load_config
    from toolkit.corpora.prepare import DataConfig

    return load_config(DataConfig, path or asset("data", "configs", shipped))


def _require_sklearn(work: str) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise EmotionLRMError(
            f"{work} needs the package scikit-learn.", 'Install it with: pip install ".[data]"'
        ) from None


def _say_damage(count: int) -> None:
    if count:
        click.echo(f"{count:,} damaged rows were passed over.", err=True)


def _print(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result))
