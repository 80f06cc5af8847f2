"""The panel: what it shows, how it fits, and that a text cannot reach through it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from toolkit.apps.panel import bar, evidence_spans, highlight, hue, make_console, percent, print_panel
from toolkit.contract.analysis import Analysis

Make = Callable[..., Analysis]

NARROW = """\
╭──────────────────────────────────────────────────────────╮
│ DISAPPOINTMENT   62 %                                    │
│ also: sadness 22 %                                       │
│                                                          │
│ disappointment  ████████████████████▌              62 %  │
│ sadness         ███████▎                           22 %  │
│ annoyance       ██▎                                 7 %  │
│ anger           █▋                                  5 %  │
│ neutral         █                                   3 %  │
│                                                          │
│ The author calls themselves “disappointed” and           │
│ “ignored”: a hope they had in others was let down.       │
│                                                          │
│ I feel »disappointed« and »ignored«...                   │
│                                                          │
│ emotion-smollm2-135m-q8_0 · author lens · goemotions     │
╰──────────────────────────────────────────────────────────╯
"""


def shown(analysis: Analysis, width: int = 60, terminal: bool = True, colour: str | None = None) -> str:
    """What is printed; on a terminal by default, without colour by default."""
    file = io.StringIO()
    options = {"highlight": False, "markup": False, "emoji": False, "width": width}
    console = Console(file=file, force_terminal=terminal, color_system=colour, **options)  # type: ignore[arg-type]
    print_panel(console, analysis)
    return file.getvalue()


def test_sixty_columns_without_colour(reading: Make) -> None:
    assert shown(reading()) == NARROW


def test_a_pipe_gets_plain_lines_without_frame_or_escapes(reading: Make) -> None:
    file = io.StringIO()
    print_panel(make_console(file), reading(mode="fast", reasoning=None))
    lines = file.getvalue().splitlines()
    assert lines[:2] == ["DISAPPOINTMENT   62 %", "also: sadness 22 %"]
    assert lines[3] == "disappointment  " + "█" * 31 + " " * 19 + "  62 %"
    assert lines[8:] == ["", "I feel »disappointed« and »ignored«...", "", lines[-1]]
    assert "\x1b" not in file.getvalue()
    assert "│" not in file.getvalue()


def test_doubt_is_shown_as_doubt(reading: Make) -> None:
    told = shown(
        reading(abstained=True, confidence=0.21, fine_emotion="sadness", outside=0.35, coverage=0.41), terminal=False
    )
    assert told.splitlines()[:4] == [
        "NO CLEAR EMOTION   closest: disappointment 21 %",
        "more exactly: sadness",
        "also: sadness 22 %",
        "35 % of the reading lies outside the labels of goemotions",
    ]
    assert "only 41 % of the model's probability went to any label" in told
    assert hue(reading(abstained=True)) == "bright_black"


def test_no_color_leaves_no_escape_sequence_even_on_a_terminal(reading: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    coloured, plain = Terminal(), Terminal()
    print_panel(make_console(coloured), reading())
    monkeypatch.setenv("NO_COLOR", "1")
    print_panel(make_console(plain), reading())
    assert "\x1b[1;4;31mdisappointed\x1b[0m" in coloured.getvalue()
    assert plain.getvalue() == NARROW


def test_an_ascii_terminal_gets_ascii(reading: Make) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    print_panel(make_console(file), reading(text="disappointed, señor"))
    file.flush()
    told = raw.getvalue().decode("ascii")
    assert '"disappointed" and "ignored"' in told
    assert "*disappointed*, se\\xf1or" in told
    assert "###" in told


NASTY = {
    "markup": "[red]x[/red] [/] [bold]disappointed[/bold] [link=http://x]y[/link]",
    "ansi": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J",
    "bidi": "\u202eevil\u202c \u2066x\u2069 \u200f",
    "nul and surrogate": "a\x00b \ud800 \udfff",
    "line ends": "a\r\nb\u2028c\x85d\re\x0bf",
    "invisible": "\ufeffx\u200by\u2060z",
    "joiners": "👨‍👩‍👧 👩🏽‍🚒",
    "zalgo": "z̴̡̛͓̪̳͙̈́̏͘a̵l̸͔̾g̷͎͝o̵͉͑" * 40,
    "one character": "x",
    "punctuation": "?!...",
    "html": "<script>alert(1)</script> =cmd() {\"emotion\":\"joy\"} \"}",
    "control tokens": "<|im_end|><|im_start|>system </s> <start_of_turn>",
    "megabyte": "x" * 1_000_000,
    "emoji": "😀" * 100_000,
    "wide": "悲しい" * 50,
    "emoji code": ":smile: [NAME] [RELIGION]",
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("width", [60, 100])
def test_nasty_texts_stay_inside_the_frame(reading: Make, name: str, width: int) -> None:
    text = NASTY[name]
    told = shown(reading(text=text, evidence=(), reasoning=text[:300], model=text[:20]), width)
    told.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069\ud800-\udfff]", told)
    assert {cell_len(line) for line in told.splitlines()} == {width}
    assert len(told) < 8_000


def test_markup_is_shown_as_written(reading: Make) -> None:
    told = shown(reading(text="[red]x[/red] :smile: [/]", evidence=("x",)), 60)
    assert "[red]»x«[/red] :smile: [/]" in told


def test_a_long_text_is_an_excerpt_around_the_evidence(reading: Make) -> None:
    text = "so " * 5_000 + "I was disappointed. " + "and " * 5_000
    told = " ".join(shown(reading(text=text), terminal=False).split())
    assert "… so so" in told
    assert "I was »disappointed«. and" in told
    assert f"({len(text):,} characters in all)" in told


def test_evidence_is_found_as_whole_words_and_never_overlaps() -> None:
    assert evidence_spans("also so", ["so"]) == [(5, 7)]
    assert evidence_spans("also", ["so"]) == [(2, 4)]
    assert evidence_spans("a very sad day", ["sad", "very sad", "gone"]) == [(2, 10)]


def test_escapes_do_not_shift_the_evidence() -> None:
    told = highlight("\x1b\x1b sad \u202e glad", ["sad", "glad"], "red", marked=True)
    assert told.plain == "\\x1b\\x1b »sad« \\u202e »glad«"


@pytest.mark.parametrize(
    ("share", "told"), [(0, "0 %"), (0.004, "<1 %"), (0.62, "62 %"), (0.996, ">99 %"), (1.0, "100 %"), (0.985, "98 %")]
)
def test_percent_never_rounds_to_certainty(share: float, told: str) -> None:
    assert percent(share) == told


@pytest.mark.parametrize(("share", "drawn"), [(0, ""), (1, "████"), (0.5, "██"), (0.28125, "█▏"), (0.02, "▏")])
def test_bars_are_exact_to_an_eighth(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("fine", "colour"), [("joy", "green"), ("anger", "red"), ("surprise", "yellow"), ("neutral", "cyan")]
)
def test_the_colour_follows_the_sentiment(reading: Make, fine: str, colour: str) -> None:
    assert hue(reading(fine_emotion=fine)) == colour
