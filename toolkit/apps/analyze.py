"""`emotion-lrm analyze`, and `emotion-lrm "some text"`: one reading a text, as a panel or as a JSON line."""

from __future__ import annotations

import codecs
import io
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import click

from toolkit.apps.escape import json_line
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import parse_lens
from toolkit.errors import UsageError
from toolkit.settings import Settings, model_options, open_model

log = logging.getLogger(__name__)
SOME_ROWS_FAILED = 3


@click.command()
@click.argument("texts", metavar="TEXT...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
@click.option("--lines", is_flag=True, help="Every line is a text; without TEXT, of standard input.")
@model_options
@click.pass_context
def analyze(ctx: click.Context, texts: tuple[str, ...], as_json: bool, lines: bool, settings: Settings) -> None:
    """Read the emotion of each TEXT and say what it rests on.

    The TEXT - is read from standard input.

    \b
    emotion-lrm analyze "I feel disappointed and ignored..."
    emotion-lrm analyze --taxonomy ekman --mode fast --json "What a day!" "Leave me alone."
    emotion-lrm analyze --lines --json - < comments.txt > emotions.jsonl
    """
    if settings.lens == "both":
        raise UsageError("No model here reads through both lenses.", "Use --lens author.")
    blank: list[int] = []
    stdin = sys.stdin.buffer
    wanted = read_lines(texts, stdin, blank.append) if lines else iter(read_texts(texts, stdin))
    began = time.perf_counter()
    with open_model(settings) as model:
        log.info("model %s ready after %.1f s", model.name, time.perf_counter() - began)
        readings = model.analyze_many(
            wanted, lens=parse_lens(settings.lens), taxonomy=settings.taxonomy, mode=settings.mode
        )
        count = show(readings, as_json)
    log.info("%d texts after %.1f s", count, time.perf_counter() - began)
    for number in blank:
        click.echo(f"Line {number} is empty and was not read.", err=True)
    if blank:
        ctx.exit(SOME_ROWS_FAILED)
    if not count:
        raise UsageError("There was no line to read.", "Pass texts, one a line.")


def show(readings: Iterator[Analysis], as_json: bool) -> int:
    """Print every reading as it comes, to standard output; returns how many there were."""
    count = 0
    if as_json:
        for count, reading in enumerate(readings, 1):  # noqa: B007
            click.echo(json_line(reading.to_dict()), nl=False)
        return count
    from toolkit.apps.panel import make_console, print_panel

    console = make_console(sys.stdout)
    for count, reading in enumerate(readings, 1):
        if count > 1:
            console.print()
        print_panel(console, reading)
    return count


def read_texts(arguments: Sequence[str], stdin: BinaryIO) -> list[str]:
    """The texts to analyze; ``-`` is all of ``stdin``, less the line end that closes it.

    Raises:
        UsageError: where there is none, or one is empty or blank.
    """
    if not arguments:
        raise UsageError("No text was given.", "Put it in quotation marks, or pass - to read standard input.")
    texts = [_without_line_end(decode(stdin.read())) if text == "-" else text for text in arguments]
    if not all(text.strip() for text in texts):
        raise UsageError("The text is empty.", "Pass at least one word.")
    return texts


def read_lines(arguments: Sequence[str], stdin: BinaryIO, on_blank: Callable[[int], object]) -> Iterator[str]:
    r"""One text a line, lazily; only ``\n`` and ``\r\n`` end a line. ``on_blank`` hears the number of a blank one."""
    sources = (_lines(argument, stdin) for argument in arguments or ("-",))
    for number, line in enumerate(itertools.chain.from_iterable(sources), 1):
        text = _without_line_end(line)
        if text.strip():
            yield text
        else:
            on_blank(number)


def _lines(argument: str, stdin: BinaryIO) -> Iterator[str]:
    return map(decode, stdin) if argument == "-" else iter(io.StringIO(argument, newline="\n"))


def decode(raw: bytes) -> str:
    """UTF-8 without its byte order mark; invalid bytes become U+FFFD."""
    return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


def _without_line_end(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
