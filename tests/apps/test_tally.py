"""What a run shows while it goes on, and what it says at its end."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from toolkit.apps import tally as tally_module
from toolkit.apps.tally import Tally, Watch, duration, progress_line, summary


def test_progress_says_rate_time_left_and_labels() -> None:
    tally = Tally(rows=1_200)
    tally.labels.update({"joy": 30, "neutral": 60, "anger": 6, "fear": 4})
    told = progress_line(tally, total=5_000, first=200, seconds=12.5)
    assert told == "1,200/5,000 rows · 80.0 rows/s · 48 s left · neutral 60 %, joy 30 %, anger 6 %"
    assert [duration(s) for s in (0.4, 99, 700, 11_100)] == ["0 s", "99 s", "12 min", "3 h 05 min"]


def test_the_summary_is_a_bar_chart() -> None:
    tally = Tally(rows=12)
    tally.status.update({"ok": 10, "error": 2})
    tally.labels.update({"joy": 8, "anger": 2})
    tally.reasons.update({"bad \x1b[31m line": 2})
    assert summary(tally, 3.2, width=38) == [
        "12 rows in 3 s: 10 ok, 2 error.",
        "joy    " + "█" * 21 + "  8   80 %",
        "anger  " + "█████▎".ljust(21) + "  2   20 %",
        "2 x bad \\x1b[31m line",
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that a watch sees, in seconds: it stands still until it is set."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(tally_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_in_a_pipe_a_line_comes_now_and_then(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(total=300, started_at=100) as watch:
        for clock.now in range(1, 76):
            watch(Tally(rows=100 + clock.now))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "130/300 rows · 1.0 rows/s · 3 min left",
        "160/300 rows · 1.0 rows/s · 2 min left",
    ]


class Terminal(io.StringIO):
    """A terminal that remembers what it was sent."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_is_drawn_and_taken_away(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    tally = Tally(rows=2)
    tally.labels.update({"[red]joy": 2})
    with Watch(total=4) as watch:
        clock.now = 0.2
        watch(Tally(rows=1))  # too soon
        clock.now = 1.0
        watch(tally)
    sent = terminal.getvalue()
    assert "━" in sent
    assert "2/4 rows · 2.0 rows/s · 1 s left · [red]joy 100 %" in sent
    assert "1/4 rows" not in sent
    assert sent.endswith("\x1b[2K")  # the line is empty again
