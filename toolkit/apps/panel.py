"""The panel: one analysis on a terminal, in a pipe, in 60 columns, with or without colour."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO

from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

from toolkit.apps.escape import escaped, is_hidden, visible
from toolkit.contract.analysis import Analysis, Comparison, Divergence
from toolkit.contract.taxonomy import load_taxonomy

WIDEST = 100
TOP = 5
EXCERPT = 600
_HUES = {"positive": "green", "negative": "red", "ambiguous": "yellow", "neutral": "cyan", "unsure": "bright_black"}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_ASCII = str.maketrans("█▏▎▍▌▋▊▉“”»«·…", '#   ####""**-~')


def make_console(file: IO[str]) -> Console:
    """A console for ``file`` that prints strings as they are; ``NO_COLOR`` leaves no escape sequence at all."""
    if os.environ.get("NO_COLOR"):
        return Console(file=file, color_system=None, highlight=False, markup=False, emoji=False)
    return Console(file=file, highlight=False, markup=False, emoji=False)


def print_panel(console: Console, analysis: Analysis) -> None:
    """Show one analysis as :func:`panel_of` draws it."""
    console.print(panel_of(console, analysis), width=_width(console))


def panel_of(console: Console, analysis: Analysis) -> RenderableType:
    """One analysis: framed on a terminal, as plain lines in a pipe, in ASCII where the encoding has no more."""
    width, framed = _width(console), console.is_terminal
    body = Group(*_body(analysis, width - 4 if framed else width, marked=console.color_system is None))
    shown: RenderableType = body
    if framed:
        shown = Panel(body, box=ROUNDED, border_style=f"dim {hue(analysis)}", width=width, padding=(0, 1))
    return _InAscii(shown) if console.options.ascii_only else shown


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Show both readings, one under the other, and how far they part."""
    print_panel(console, comparison.author)
    if not console.is_terminal:
        console.print()
    print_panel(console, comparison.reader)
    if not console.is_terminal:
        console.print()
    print_divergence(console, comparison.divergence)


def print_divergence(console: Console, divergence: Divergence) -> None:
    """Show how far two readings part."""
    console.print(Text(divergence.summary, style="bold"), width=_width(console))


def _width(console: Console) -> int:
    return min(console.width, WIDEST)


@dataclass(frozen=True, slots=True)
class _InAscii:
    """Something to show where the encoding has ASCII only: frames are rich's part, our own signs are ours."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.shown, options):
            yield Segment(segment.text.translate(_ASCII), segment.style, segment.control)


def hue(analysis: Analysis) -> str:
    """The colour of an emotion, by its sentiment; grey where the model abstained."""
    return _HUES[tone(analysis)]


def tone(analysis: Analysis) -> str:
    """``positive``, ``negative``, ``ambiguous`` or ``neutral``, or ``unsure`` where the model abstained."""
    if analysis.abstained:
        return "unsure"
    native = load_taxonomy(analysis.lens.native)
    return native.entries[native.index(analysis.fine_emotion)].maps["sentiment"]


def percent(share: float) -> str:
    """``62 %``; never ``0 %`` for something or ``100 %`` for less than all."""
    if 0 < share < 0.01:
        return "<1 %"
    return ">99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` cells, in eighths of a cell."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _body(analysis: Analysis, width: int, marked: bool) -> Iterator[Text]:
    yield _heading(analysis)
    yield from (Text(note, style="dim") for note in notes(analysis))
    yield Text()
    yield from _bars(analysis, width)
    yield Text()
    if analysis.reasoning is not None:
        yield Text(visible(analysis.reasoning))
        yield Text()
    yield highlight(analysis.text, analysis.evidence, hue(analysis), marked)
    yield Text()
    yield Text(visible(f"{analysis.model} · {analysis.lens} lens · {analysis.taxonomy}"), style="dim")


def _heading(analysis: Analysis) -> Text:
    name, share = analysis.emotion.upper(), percent(analysis.confidence)
    if analysis.abstained:
        return Text.assemble(("NO CLEAR EMOTION", "bold yellow"), (f"   closest: {analysis.emotion} {share}", "yellow"))
    return Text.assemble((name, f"bold {hue(analysis)}"), ("   ", ""), (share, "bold"))


def notes(analysis: Analysis) -> Iterator[str]:
    """What else is to be said of a reading, a line each."""
    if analysis.fine_emotion != analysis.emotion:
        yield f"more exactly: {analysis.fine_emotion}"
    others = [label for label in analysis.emotions if label != analysis.emotion]
    if others:
        yield "also: " + ", ".join(f"{label} {percent(analysis.scores[label])}" for label in others)
    if analysis.outside >= 0.2:
        yield f"{percent(analysis.outside)} of the reading lies outside the labels of {analysis.taxonomy}"
    if analysis.coverage < 0.8:
        yield f"only {percent(analysis.coverage)} of the model's probability went to any label"


def _bars(analysis: Analysis, width: int) -> Iterator[Text]:
    top = sorted(analysis.scores.items(), key=lambda item: -item[1])[:TOP]
    name_width = max(len(label) for label, _ in top)
    bar_width = max(5, min(50, width - name_width - 9))
    for label, share in top:
        style = hue(analysis) if label in analysis.emotions else "dim"
        drawn = bar(share, bar_width).ljust(bar_width)
        line = Text.assemble((label.ljust(name_width), style), "  ", (drawn, style), (percent(share).rjust(6), style))
        line.no_wrap = True
        yield line


def highlight(text: str, evidence: Sequence[str], colour: str, marked: bool) -> Text:
    """The text with its evidence underlined, or between » and « where there is no style; hidden characters escaped.

    A long text is shown as an excerpt around the first evidence, which says how much is left out.
    """
    spans = evidence_spans(text, evidence)
    begin, end = window(text, spans)
    result = Text("… " if begin else "")
    position = begin
    for start, stop in [*(span for span in spans if span[1] <= end), (end, end)]:
        _append(result, text[position:start], "")
        if stop > start:
            _append(result, f"»{text[start:stop]}«" if marked else text[start:stop], f"bold underline {colour}")
        position = stop
    if end - begin < len(text):
        result.append(f" … ({len(text):,} characters in all)", style="dim")
    return result


def window(text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Where the part of a long text that is shown begins and ends: around the first evidence."""
    begin = _excerpt_start(text, spans[0][0]) if spans and spans[0][1] > EXCERPT else 0
    return begin, min(len(text), begin + EXCERPT)


def evidence_spans(text: str, evidence: Sequence[str]) -> list[tuple[int, int]]:
    """Where each quoted span stands: as whole words if it does so anywhere; sorted, without overlaps."""
    found = sorted(_find(text, span) for span in evidence)
    kept: list[tuple[int, int]] = []
    for start, stop in found:
        if start >= 0 and (not kept or start >= kept[-1][1]):
            kept.append((start, stop))
    return kept


def _find(text: str, span: str) -> tuple[int, int]:
    first = start = text.find(span)
    while start >= 0:
        stop = start + len(span)
        before, after = text[start - 1 : start], text[stop : stop + 1]
        if not (before.isalnum() and span[:1].isalnum()) and not (after.isalnum() and span[-1:].isalnum()):
            return start, stop
        start = text.find(span, start + 1)
    return first, first + len(span)


def _excerpt_start(text: str, evidence: int) -> int:
    """A third of an excerpt before the evidence, at the start of a word where there is one."""
    begin = evidence - EXCERPT // 3
    return text.find(" ", begin, evidence) + 1 or begin


def _append(result: Text, piece: str, style: str) -> None:
    for hidden, run in groupby(piece.replace("\r\n", "\n"), is_hidden):
        shown = "".join(escaped(character) if hidden else character for character in run)
        result.append(shown, style="dim yellow" if hidden else style)
