"""`emotion-lrm convert quantize`: one file type, or all of them, measured on this machine."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from convert.commands import print_quantized, show_progress
from convert.file_types import FILE_TYPES, MIXED
from toolkit.errors import EmotionLRMError, ModelError, UsageError
from toolkit.settings import Progress

if TYPE_CHECKING:
    from convert.gguf_file import Progress as Tell
    from toolkit.apps.quality import Bounds, Loss, Quality
    from toolkit.apps.throughput import Throughput
    from toolkit.evaluation.protocols import Rows

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OFFERED = tuple(name for name in FILE_TYPES if name != "F32")


@dataclass(frozen=True, slots=True)
class Measured:
    """One file type of a model: what it takes, what it is worth, what it has lost, and how fast it is."""

    file_type: str
    n_bytes: int
    bits_per_weight: float
    accuracy: float
    macro_f1: float
    loss: Loss
    speed: Throughput
    fallbacks: dict[str, str]

    def to_dict(self, bounds: Bounds) -> dict[str, Any]:
        """One element of ``types`` of ``quantize --all --json``."""
        return {
            "file_type": self.file_type,
            "bytes": self.n_bytes,
            "bits_per_weight": self.bits_per_weight,
            "fallbacks": self.fallbacks,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "loss": asdict(self.loss),
            "prompt_tokens_per_second": self.speed.prompt,
            "decode_tokens_per_second": self.speed.decode,
            "texts_per_second": self.speed.texts,
            "refused": not self.loss.within(bounds),
        }


@click.command()
@click.argument("source", type=_FILE, required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write; with --all, a folder.")
@click.option("-t", "--file-type", type=click.Choice(FILE_TYPES, case_sensitive=False), help="How to store weights.")
@click.option("--all", "every", is_flag=True, help="Measure every file type on this machine.")
@click.option("--auto", is_flag=True, help="Measure them all, and take the fastest that loses little.")
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    help="Top-1 accuracy that a file type may lose before it is refused.  [default: 0.005]",
)
@click.option(
    "--max-f1-loss",
    type=click.FloatRange(0, 1),
    help="Macro-F1 that it may lose; more by chance alone does not count.  [default: 0.003]",
)
@click.option("--source", "corpora", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the corpora.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Judge by the first N texts only.")
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="Timings of each type."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw the table.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: every core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quantize(
    source: Path | None,
    out: Path | None,
    file_type: str | None,
    every: bool,
    auto: bool,
    max_loss: float | None,
    max_f1_loss: float | None,
    corpora: Path | None,
    limit: int | None,
    rounds: int,
    plot: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write SOURCE, a GGUF of floats, in fewer bits.

    SOURCE is the shipped model in BF16 by default. Quality is measured on GoEmotions' dev split where the corpora are,
    else on the samples that ship; speed in turns, so that all types meet the machine alike.

    \b
    emotion-lrm convert quantize model-bf16.gguf -t Q8_0 -o model-q8_0.gguf
    emotion-lrm convert quantize --all --limit 500 --plot types.png
    emotion-lrm convert quantize model-bf16.gguf --auto -o model.gguf
    """
    if [file_type is not None, every, auto].count(True) != 1:
        raise UsageError("Nothing says what to write.", "Give one of --file-type, --all and --auto.")
    if file_type is not None:
        if out is None:
            raise UsageError("There is no name for the new file.", "Give --out FILE.")
        _write(_source(source), out, file_type, threads, as_json)
        return
    from toolkit.apps.quality import Bounds, labelled_rows

    usual = Bounds()
    bounds = Bounds(
        usual.top1 if max_loss is None else max_loss, usual.macro_f1 if max_f1_loss is None else max_f1_loss
    )
    if plot is not None:
        from toolkit.corpora.figures import require_matplotlib

        require_matplotlib()
    rows, judged_by = labelled_rows(corpora, limit)
    path = _source(source)
    with _folder(out if every else None) as folder, Progress() as progress:
        found = measure_all(path, folder, rows, threads=threads, rounds=rounds, progress=progress)
    told = {"source": path.name, "judged_by": judged_by, "texts": len(rows.texts)}
    told |= {"max_loss": bounds.top1, "max_f1_loss": bounds.macro_f1}
    chosen = fastest(found, bounds) if auto else None
    _show(found, told, bounds, chosen, as_json)
    if plot is not None:
        from toolkit.apps.quantize_plot import draw

        draw(found, bounds, judged_by, plot)
    if chosen is not None and out is not None:
        _write(path, out, chosen.file_type, threads, as_json=False, quietly=as_json)


def measure_all(
    source: Path,
    folder: Path,
    rows: Rows,
    *,
    threads: int | None = None,
    rounds: int = 5,
    progress: Tell | None = None,
) -> list[Measured]:
    """Write every file type of a model into a folder, and measure it.

    Args:
        source: a GGUF of floats; what the others lose, they lose against it.
        folder: takes the files, together about five times the size of a BF16 source.
        rows: labelled texts to judge by.
        threads: None takes every core.
        rounds: how often each type is timed.

    Raises:
        ConvertError: for a source that is quantized already, a full disk and the like.
    """
    from convert.files import require_space
    from convert.quantize import QuantizationReport
    from convert.quantize import quantize as quantize_file
    from toolkit.apps.quality import judge_file, loss_against
    from toolkit.apps.throughput import measure_throughput
    from toolkit.inference.weighing import weighing_texts

    require_space(folder, 6 * source.stat().st_size)
    texts = weighing_texts(source)
    reports: list[QuantizationReport] = []
    quality: list[Quality] = []
    reference = judge_file(source, rows, threads, _named(progress, "source"))
    for file_type in _OFFERED:
        path = _path(folder, source, file_type)
        reports.append(quantize_file(source, path, file_type, threads=threads, texts=texts))
        quality.append(judge_file(path, rows, threads, _named(progress, file_type)))
    paths = [_path(folder, source, file_type) for file_type in _OFFERED]
    speeds = measure_throughput(paths, threads, rounds, progress)
    return [
        Measured(
            file_type=report.file_type,
            n_bytes=report.n_bytes,
            bits_per_weight=report.bits_per_weight,
            accuracy=found.accuracy,
            macro_f1=found.macro_f1,
            loss=loss_against(reference, found),
            speed=speed,
            fallbacks=report.fallbacks,
        )
        for report, found, speed in zip(reports, quality, speeds, strict=True)
    ]


def fastest(found: Sequence[Measured], bounds: Bounds) -> Measured:
    """The file type that reads and explains most texts a second among those that lose no more than they may.

    Raises:
        EmotionLRMError: where none of them is within the bounds.
    """
    allowed = [one for one in found if one.loss.within(bounds)]
    if not allowed:
        raise EmotionLRMError(
            f"Every file type loses more than {bounds.top1} of the top-1 accuracy or {bounds.macro_f1} of macro-F1.",
            "Raise --max-loss or --max-f1-loss, or keep SOURCE.",
        )
    return max(allowed, key=lambda one: one.speed.texts)


def _write(source: Path, out: Path, file_type: str, threads: int | None, as_json: bool, quietly: bool = False) -> None:
    """Write one file type, and say what became of the tensors."""
    from convert.quantize import quantize as quantize_file
    from toolkit.inference.weighing import weighing_texts

    texts = []
    if file_type == MIXED:
        try:
            texts = weighing_texts(source)
        except ModelError as error:
            click.echo(f"Rounded by the weights alone: {error}", err=True)
    report = quantize_file(source, out, file_type, show_progress, threads, texts)
    if not quietly:
        print_quantized(report, out, as_json)


def _source(given: Path | None) -> Path:
    """The file to start from: the shipped model in BF16, built if need be, where none was given."""
    if given is not None:
        return given
    from toolkit.inference.store import ensure, load_shipped

    with Progress("Building the model in BF16; this happens once.") as progress:
        return ensure(f"{load_shipped().default}-bf16", progress)


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """The folder to write into: ``kept``, or one that is removed at the end."""
    from convert.files import explained
    from toolkit.inference.store import models_folder

    home = kept or models_folder()
    with explained(home):
        home.mkdir(parents=True, exist_ok=True)
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=home) as folder:
        yield Path(folder)


def _path(folder: Path, source: Path, file_type: str) -> Path:
    stem = source.stem
    for name in FILE_TYPES:
        stem = stem.removesuffix(f"-{name.lower()}")
    return folder / f"{stem}-{file_type.lower()}.gguf"


def _named(progress: Tell | None, file_type: str) -> Tell | None:
    return progress and (lambda done, total, step: progress(done, total, f"{step} with {file_type}"))


def _show(
    found: Sequence[Measured], told: dict[str, Any], bounds: Bounds, chosen: Measured | None, as_json: bool
) -> None:
    if as_json:
        picked = {"chosen": chosen.file_type} if chosen else {}
        click.echo(json.dumps(told | picked | {"types": [one.to_dict(bounds) for one in found]}))
        return
    print_table(found, told, bounds, sys.stdout)
    if chosen is not None:
        click.echo(f"Chosen: {chosen.file_type}, the fastest of those that are not refused.")


def print_table(found: Sequence[Measured], told: dict[str, Any], bounds: Bounds, file: IO[str]) -> None:
    """The file types from the fastest to the slowest, 80 columns wide; what lost too much is marked."""
    from rich.console import Console
    from rich.table import Table

    from toolkit.apps.throughput import PROMPT_TOKENS, WRITTEN_TOKENS

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("type", no_wrap=True)
    for heading in ("MB", "lost", "±", "F1 lost", "±", "KL", "prompt", "decode", "texts"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in sorted(found, key=lambda one: -one.speed.texts):
        table.add_row(
            one.file_type, f"{one.n_bytes / 1e6:.0f}", f"{one.loss.top1:+.3f}", f"{one.loss.noise:.3f}",
            f"{one.loss.macro_f1:+.3f}", f"{one.loss.macro_f1_noise:.3f}", f"{one.loss.kl:.4f}",
            f"{one.speed.prompt:.0f}", f"{one.speed.decode:.0f}", f"{one.speed.texts:.1f}",
            "" if one.loss.within(bounds) else "refused",
        )  # fmt: skip
    console = Console(file=file, highlight=False, markup=False)
    console.print(f"{told['source']}, judged by {told['judged_by']}\n", soft_wrap=True)
    console.print(table)
    console.print(
        f"\nlost: top-1 accuracy that the source has more, ± standard error; above {bounds.top1} it is refused.\n"
        f"F1 lost: the same of macro-F1; above {bounds.macro_f1} it is refused, if chance does not explain it.\n"
        "KL: mean divergence of the label posterior from the source's, in nats.\n"
        "prompt, decode: tokens a second, here and now; texts: a second, each of "
        f"{PROMPT_TOKENS} tokens read and {WRITTEN_TOKENS} written.",
        soft_wrap=True,
    )
