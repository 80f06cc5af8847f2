"""What a run has done so far: counted, shown while it goes on, and summed up at its end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.apps.escape import visible

_REASONS = 20
_LINE_EVERY = 30.0


@dataclass(slots=True)
class Tally:
    """Counts over the rows of a run.

    Attributes:
        labels: through the lens asked for, and the author's where both were.
        reader: through the reader's lens where both were asked for.
        reasons: the first different errors only.
    """

    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    reader: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one row of the output."""
        self.rows += 1
        self.status[record["status"]] += 1
        for counts, reading in zip((self.labels, self.reader), readings(record), strict=False):
            counts[reading["emotion"]] += 1
        reason = record["error"]
        if reason is not None and (reason in self.reasons or len(self.reasons) < _REASONS):
            self.reasons[reason] += 1

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON has them."""
        return {
            "rows": self.rows, "status": dict(self.status), "labels": dict(self.labels), "reader": dict(self.reader),
            "reasons": dict(self.reasons),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Tally:
        """The tally that :meth:`to_dict` was made from."""
        counts = (Counter(told.get(name, {})) for name in ("status", "labels", "reader", "reasons"))
        return cls(told["rows"], *counts)

    def leaders(self, count: int) -> str:
        """``neutral 31 %, joy 12 %``: the most frequent labels and their share of the rows that have one."""
        from toolkit.apps.panel import percent

        total = self.labels.total()
        return ", ".join(f"{label} {percent(n / total)}" for label, n in self.labels.most_common(count))


def readings(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The readings that a row of the output holds: one, the author's and the reader's, or none where none came."""
    if record["status"] != "ok":
        return []
    return [record["author"], record["reader"]] if "divergence" in record else [record]


class Watch:
    """Progress on standard error: a bar on a terminal, a line now and then in a pipe."""

    def __init__(self, total: int, started_at: int = 0) -> None:
        self._total, self._first, self._began = total, started_at, time.monotonic()
        self._shown = self._began
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Watch:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task("", total=self._total, completed=self._first)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, tally: Tally) -> None:
        """Show how far the run is, if enough time has passed."""
        now = time.monotonic()
        if now - self._shown < (0.25 if self._bar is not None else _LINE_EVERY):
            return
        self._shown = now
        line = progress_line(tally, self._total, self._first, now - self._began)
        if self._bar is not None:
            self._bar.update(self._task, completed=tally.rows, description=line)
        else:
            print(line, file=sys.stderr, flush=True)


def progress_line(tally: Tally, total: int, first: int, seconds: float) -> str:
    """``1,200/5,000 rows · 80.0 rows/s · 47 s left · joy 31 %, ...``; ``first`` rows were there at the start."""
    rate = (tally.rows - first) / seconds if seconds > 0 else 0.0
    parts = [f"{tally.rows:,}/{total:,} rows", f"{rate:,.1f} rows/s"]
    if rate:
        parts.append(f"{duration((total - tally.rows) / rate)} left")
    if tally.labels:
        parts.append(tally.leaders(3))
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """``47 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def summary(tally: Tally, seconds: float, width: int = 80) -> list[str]:
    """The lines at the end of a run: counts, a bar chart of the labels, and why rows failed."""
    counts = ", ".join(f"{tally.status[name]:,} {name}" for name in ("ok", "empty", "error") if tally.status[name])
    lines = [f"{tally.rows:,} rows in {duration(seconds)}: {counts or 'nothing in it'}."]
    if tally.reader:
        lines += ["Through the author's lens:", *_chart(tally.labels, width)]
        lines += ["Through the reader's lens:", *_chart(tally.reader, width)]
    else:
        lines += _chart(tally.labels, width)
    lines += [f"{count:,} x {visible(reason)}" for reason, count in tally.reasons.most_common(5)]
    return lines


def _chart(labels: Counter[str], width: int) -> Iterator[str]:
    from toolkit.apps.panel import bar, percent

    total = labels.total()
    name_width = max((len(label) for label in labels), default=0)
    number_width = len(f"{max(labels.values(), default=0):,}")
    room = max(5, min(50, width - name_width - number_width - 11))
    for label, count in labels.most_common():
        drawn = bar(count / labels.most_common(1)[0][1], room).ljust(room)
        yield f"{label:<{name_width}}  {drawn}  {count:>{number_width},}  {percent(count / total):>5}"
