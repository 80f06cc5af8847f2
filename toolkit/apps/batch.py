"""`emotion-lrm batch`: a file of texts in, a row out for every row in; interrupted, it goes on from there."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from convert.files import explained, sha256_of
from toolkit.apps.answers import Answers, Predictor
from toolkit.apps.both import Pair, check_both, comparisons, pair_of
from toolkit.apps.escape import json_line, visible
from toolkit.apps.journal import Journal, alone, check_destination
from toolkit.apps.results import finish, output_form, record_of, records
from toolkit.apps.tables import FORMS, Table, open_table
from toolkit.apps.tally import Tally, Watch, summary
from toolkit.apps.workers import open_workers
from toolkit.contract.lens import check_pair, parse_lens
from toolkit.errors import DataError, UsageError
from toolkit.inference.request import Wish
from toolkit.settings import Settings, is_quiet, model_options

if TYPE_CHECKING:
    from toolkit.apps.batch_report import BatchReport

SOME_ROWS_FAILED = 3


@click.command()
@click.argument("source", type=click.Path(readable=False), metavar="INPUT")
@click.option(
    "-o", "--output", type=click.Path(), required=True, metavar="OUTPUT",
    help="A .jsonl, .csv or .parquet file, or a folder/.",
)  # fmt: skip
@click.option("--text-column", metavar="C", help="Name or number of the column with the texts.  [default: guessed]")
@click.option("--id-column", metavar="C", help="Name or number of the column with the ids.  [default: id]")
@click.option("--format", "form", type=click.Choice(FORMS), help="The form of INPUT.  [default: by name and content]")
@click.option("--delimiter", metavar="D", help="What separates the cells of a CSV.  [default: found]")
@click.option("--encoding", metavar="E", help="The encoding of INPUT.  [default: found]")
@click.option("--header/--no-header", default=None, help="Whether a CSV starts with names.  [default: found]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run; start afresh where there is none.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT and what is left of an interrupted run.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write a report there.")
@click.option(
    "--date-column", metavar="C", help="Name or number of the column with dates, for the report.  [default: found]"
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Worker processes.  [default: 1; ray: all cores]")
@click.option(
    "--engine", type=click.Choice(("local", "ray")), default="local", show_default=True, help="What shares out."
)
@click.option("--address", metavar="A", help="The Ray cluster.  [default: RAY_ADDRESS, else one of this machine alone]")
@model_options
@click.pass_context
def batch(
    ctx: click.Context, source: str, output: str, form: str | None, delimiter: str | None, encoding: str | None,
    header: bool | None, text_column: str | None, id_column: str | None, resume: bool, overwrite: bool,
    workers: int | None, report: Path | None, date_column: str | None, engine: str, address: str | None,
    settings: Settings,
) -> None:  # fmt: skip
    """Read every text of a CSV, TSV, JSONL, text or Parquet file.

    INPUT may be compressed with gzip; - is standard input. Every row of INPUT gives one row of OUTPUT, with its id, its
    row number from 0 and a status: ok, empty or error. The exit code is 3 where a row failed. In a CSV output, a cell
    that a spreadsheet would run as a formula gets an apostrophe in front. With --lens both, a row holds both readings
    and their divergence. The report is report.html, which holds some of the texts, report.json and pictures.

    With --engine ray, INPUT may also be a folder, a glob or an address such as s3://bucket/folder, and OUTPUT a folder
    of parts: X.parquet/ of Parquet, X/ of JSON lines.

    \b
    emotion-lrm batch comments.csv -o emotions.jsonl
    emotion-lrm batch comments.csv -o emotions.jsonl --resume
    emotion-lrm batch reviews.parquet --text-column body --mode fast -o emotions.parquet
    emotion-lrm batch diary.csv -o emotions.csv --report out --date-column written
    emotion-lrm batch "comments/*.parquet" -o emotions.parquet/ --engine ray --address auto
    """
    if engine == "ray" or address:
        from toolkit.apps.cluster.run import on_ray

        ctx.exit(on_ray(ctx.params, settings, _say))
    wish = wish_of(settings)
    if date_column and not report:
        raise UsageError("--date-column is for the report alone.", "Add --report DIR, or leave it out.")
    if report:
        from toolkit.evaluation.plots import prepare_folder

        prepare_folder(report)
    if output.endswith("/"):
        raise UsageError("A folder of parts is written by the engine ray.", "Add --engine ray, or name a file.")
    target = Path(output)
    output_form(target)
    check_destination(target, resume, overwrite)
    with alone(target), local_input(source, target, sys.stdin.buffer) as path:
        if path.exists() and target.exists() and path.samefile(target):
            raise UsageError("INPUT and OUTPUT are the same file.", "Choose another output.")
        table = open_table(
            path, form=form, encoding=encoding, delimiter=delimiter, header=header, text_column=text_column,
            id_column=id_column,
        )  # fmt: skip
        reported = _report_of(table, report, date_column)
        _say(*table.notes, *(reported.notes if reported else ()))
        with open_workers(settings, workers or 1) as model:
            tally = run_batch(
                model, table, target, wish=wish, resume=resume, overwrite=overwrite, show=not is_quiet(), say=_say,
                survey=reported.survey if reported else None,
            )  # fmt: skip
    if reported:
        reported.write()
        _say(f"The report is {reported.folder / 'report.html'}.")
    if tally.status["error"]:
        ctx.exit(SOME_ROWS_FAILED)


def run_batch(
    predictor: Predictor,
    table: Table,
    output: Path,
    *,
    wish: Wish | Pair,
    resume: bool = False,
    overwrite: bool = False,
    show: bool = False,
    say: Callable[..., None] = lambda *_: None,
    survey: Callable[[Iterator[dict[str, Any]]], None] | None = None,
    watch: Callable[[int, Tally], None] = lambda *_: None,
) -> Tally:
    """Read every row of ``table`` and write ``output``; returns the counts over all its rows.

    Where another process might write the same output, hold :func:`~toolkit.apps.journal.alone` around it.

    Args:
        show: draw progress on standard error.
        say: called with lines that a person should see: what was resumed, and the summary.
        survey: called once, after the last row, with the objects of all rows, in order and read one at a time.
        watch: called after every row with the number of all rows and the counts so far; what it raises ends the run.

    Raises:
        UsageError: where the output exists and neither ``resume`` nor ``overwrite`` is set, and for a model that has
            not learned both lenses where both are asked for.
        DataError: for damaged input, or input that changed since the run that is resumed.
        FileError: no space, no permission.
    """
    form, began = output_form(output), time.monotonic()
    check_destination(output, resume, overwrite)
    if isinstance(wish, Pair):
        check_both(predictor)
    stamp = _stamp(table.path)
    total = sum(1 for _ in table.rows())  # a damaged file is found out before the work, not in the middle
    journal = Journal(output, _identity(table, wish, predictor.name), resume)
    try:
        if journal.tally.rows:
            say(f"Resuming after {journal.tally.rows:,} of {total:,} rows.")
        _answer(predictor, table, wish, journal, total, show, watch)
        journal.close()
        _check_unchanged(table.path, stamp)
        if survey is not None:
            survey(records(journal.partial))
        finish(journal.partial, output, form, wish)
    except BaseException:
        journal.close()
        say("What was read is kept; --resume continues from there.")
        raise
    journal.forget()
    say(*summary(journal.tally, time.monotonic() - began))
    return journal.tally


def _answer(
    predictor: Predictor, table: Table, wish: Wish | Pair, journal: Journal, total: int, show: bool,
    watch: Callable[[int, Tally], None],
) -> None:  # fmt: skip
    bar = Watch(total, journal.tally.rows) if show else contextlib.nullcontext()
    with contextlib.closing(table.rows()) as rows, bar as advance:
        rest = islice(rows, journal.tally.rows, None)
        outcomes = comparisons(predictor, rest, wish) if isinstance(wish, Pair) else Answers(predictor, rest, wish)
        for row, outcome in outcomes:
            record = record_of(row, outcome, wish, predictor.name)
            journal.add(json_line(record), record)
            if advance is not None:
                advance(journal.tally)
            watch(total, journal.tally)
    journal.checkpoint()


def _stamp(path: Path) -> tuple[int, int]:
    with explained(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns


def _check_unchanged(path: Path, stamp: tuple[int, int]) -> None:
    """Refuse to call rows of two versions of a file one result."""
    if _stamp(path) != stamp:
        raise DataError(f"{path} changed while it was read.", "Restore it and --resume; --overwrite starts afresh.")


def wish_of(settings: Settings) -> Wish | Pair:
    """How the settings want texts to be read, checked before a model is loaded.

    Raises:
        UsageError: for a lens or a taxonomy that cannot be had.
    """
    if settings.lens == "both":
        return pair_of(settings.taxonomy, settings.mode)
    lens = parse_lens(settings.lens)
    taxonomy = settings.taxonomy or lens.native
    check_pair(lens, taxonomy)
    return Wish(lens, taxonomy, settings.mode)


@contextlib.contextmanager
def local_input(source: str, output: Path, stdin: BinaryIO) -> Iterator[Path]:
    """The input as a file. Standard input is copied beside the output, for it is read twice.

    A killed run leaves that copy; the next one with the same output, whatever it reads, removes it.
    """
    copy = output.with_name(f".{output.name}.standard input")
    try:
        if source == "-":
            with explained(copy), open(copy, "wb") as file:
                shutil.copyfileobj(stdin, file)
        yield copy if source == "-" else Path(source)
    finally:
        copy.unlink(missing_ok=True)


def _report_of(table: Table, folder: Path | None, date_column: str | None) -> BatchReport | None:
    """The report that was asked for, if any; only then is what it stands on imported."""
    if folder is None:
        return None
    from toolkit.apps.batch_report import BatchReport

    return BatchReport(table, folder, date_column)


def _identity(table: Table, wish: Wish | Pair, model: str) -> dict[str, object]:
    wishes = (wish.author, wish.reader) if isinstance(wish, Pair) else (wish,)
    lens, taxonomy = (
        " and ".join(map(str, names)) for names in zip(*((w.lens, w.taxonomy) for w in wishes), strict=True)
    )
    asked = {"lens": lens, "taxonomy": taxonomy, "mode": wishes[0].mode, "model": model}
    return {"input": sha256_of(table.path), **table.identity(), **asked}


def _say(*lines: str) -> None:
    if not is_quiet():
        for line in lines:
            click.echo(visible(line), err=True)
