"""`emotion-lrm analyze`, and `emotion-lrm "some text"`: one reading a text, as a panel or as a JSON line."""

from __future__ import annotations

import codecs
import io
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from toolkit.apps.escape import json_line
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import parse_lens
from toolkit.errors import UsageError
from toolkit.settings import BACKENDS, Settings, model_options, open_model

if TYPE_CHECKING:
    from toolkit.inference.model import EmotionModel

log = logging.getLogger(__name__)
SOME_ROWS_FAILED = 3


@click.command()
@click.argument("texts", metavar="TEXT...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
@click.option("--lines", is_flag=True, help="Every line is a text; without TEXT, of standard input.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="llama.cpp",
    help="transformers: with torch and the unmerged adapter, to compare.  [default: llama.cpp]",
)
@model_options
@click.pass_context
def analyze(
    ctx: click.Context, texts: tuple[str, ...], as_json: bool, lines: bool, backend: str, settings: Settings
) -> None:
    """Read the emotion of each TEXT and say what it rests on.

    The TEXT - is read from standard input.

    \b
    emotion-lrm analyze "I feel disappointed and ignored..."
    emotion-lrm analyze --taxonomy ekman --mode fast --json "What a day!" "Leave me alone."
    emotion-lrm analyze --lens both "Oh great, another meeting."
    emotion-lrm analyze --lines --json - < comments.txt > emotions.jsonl
    """
    blank: list[int] = []
    stdin = sys.stdin.buffer
    wanted = read_lines(texts, stdin, blank.append) if lines else iter(read_texts(texts, stdin))
    began = time.perf_counter()
    with open_model(settings, backend) as model:
        log.info("model %s ready after %.1f s", model.name, time.perf_counter() - began)
        count = show(_readings(model, wanted, settings), as_json)
    log.info("%d texts after %.1f s", count, time.perf_counter() - began)
    for number in blank:
        click.echo(f"Line {number} is empty and was not read.", err=True)
    if blank:
        ctx.exit(SOME_ROWS_FAILED)
    if not count:
        raise UsageError("There was no line to read.", "Pass texts, one a line.")


def _readings(model: EmotionModel, texts: Iterator[str], settings: Settings) -> Iterator[Analysis | Comparison]:
    """Through one lens, or through both and compared."""
    from toolkit.inference.divergence import compare_many

    if settings.lens == "both":
        return compare_many(model, texts, taxonomy=settings.taxonomy, mode=settings.mode)
    return model.analyze_many(texts, lens=parse_lens(settings.lens), taxonomy=settings.taxonomy, mode=settings.mode)


def show(readings: Iterator[Analysis | Comparison], as_json: bool) -> int:
    """Print every reading as it comes, to standard output; returns how many there were."""
    count = 0
    if as_json:
        for count, reading in enumerate(readings, 1):  # noqa: B007
            click.echo(json_line(reading.to_dict()), nl=False)
        return count
    from toolkit.apps.panel import make_console, print_comparison, print_panel

    console = make_console(sys.stdout)
    for count, reading in enumerate(readings, 1):
        if count > 1:
            console.print()
        if isinstance(reading, Comparison):
            print_comparison(console, reading)
        else:
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
