"""From measured runs to a billion texts, by arithmetic that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files import explained, replacing
from toolkit.errors import DataError

BILLION = 1_000_000_000
CORES = 1_000
PRICE = 0.04  # dollars a core-hour: an assumption, which the page says
LINK = 1.25e9  # bytes a second: a network of 10 Gbit/s
ROWS_A_PART = 10_000
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, slots=True)
class Run:
    """One measured command: ``seconds`` from its start to the finished file."""

    engine: str
    workers: int
    rows: int
    mode: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """A run as a line: ``start`` seconds, and then ``rows_per_second``."""

    start: float
    rows_per_second: float


def pace_of(runs: Sequence[Run]) -> Pace | None:
    """The line through the two largest of runs that differ in their rows alone; None where they make none.

    >>> pace_of([Run("ray", 1, 100, "fast", 12.0), Run("ray", 1, 1100, "fast", 32.0)])
    Pace(start=10.0, rows_per_second=50.0)
    """
    largest = sorted(runs, key=lambda run: run.rows)[-2:]
    if len(largest) < 2 or largest[0].rows == largest[1].rows or largest[0].seconds >= largest[1].seconds:
        return None
    less, more = largest
    rate = (more.rows - less.rows) / (more.seconds - less.seconds)
    return Pace(more.seconds - more.rows / rate, rate)


def series(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    """The label-only runs of every engine and number of workers, by rows."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in sorted((run for run in runs if run.mode == "fast"), key=lambda run: (run.engine, run.workers, run.rows)):
        found.setdefault((run.engine, run.workers), []).append(run)
    return found


def fill_page(page: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures into the page, between its two marks.

    Raises:
        DataError: where the page has no marks.
    """
    with explained(page):
        text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page} has no place for figures.", f"Write {BEGIN} and {END} where they belong.")
    with replacing(page) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{written(figures)}{END}{after}", encoding="utf-8")


def written(figures: Mapping[str, Any]) -> str:
    """The figures and what follows from them, as Markdown."""
    runs = [Run(**run) for run in figures["runs"]]
    return "\n".join([*_measured(figures, runs), "", *_billion(figures, runs)]) + "\n"


def _measured(figures: Mapping[str, Any], runs: Sequence[Run]) -> Iterator[str]:
    machine, lines = figures["machine"], series(runs)
    yield (
        f"Measured on {machine['measured'][:10]} on {machine['cpu']}, {machine['usable']} processors, with "
        f"`{figures['model']}`, Ray {figures['ray']}, labels only, one thread a worker. The texts are the samples that "
        f"ship, 16 words on average. {figures['niceness']}."
    )
    yield from ("", "![Seconds and rows a second with ever more rows](scale.png)", "")
    sizes = sorted({run.rows for run in runs if run.mode == "fast"})
    heads = [f"{rows:,} rows" for rows in sizes]
    yield _row("engine", "workers", *heads, "rows a second, once it runs", "before that")
    yield _row("---", *(["---:"] * (len(heads) + 3)))
    for (engine, workers), line in lines.items():
        seconds = {run.rows: f"{run.seconds:,.1f} s" for run in line}
        pace = pace_of(line)
        rest = (f"{pace.rows_per_second:,.1f}", f"{pace.start:,.1f} s") if pace else ("", "")
        yield _row(engine, workers, *(seconds.get(rows, "not measured") for rows in sizes), *rest)
    yield ""
    yield from _compared({key: pace for key, line in lines.items() if (pace := pace_of(line))})


def _compared(paces: Mapping[tuple[str, int], Pace]) -> Iterator[str]:
    most = max((workers for _, workers in paces), default=1)
    for engine in ("local", "ray"):
        one, many = paces.get((engine, 1)), paces.get((engine, most))
        if one and many and most > 1:
            gain = many.rows_per_second / one.rows_per_second
            yield f"- {most} workers instead of one, engine {engine}: {gain:.2f} times the rows a second."
    local, ray = paces.get(("local", most)), paces.get(("ray", most))
    if local and ray:
        more = 100 * (local.rows_per_second / ray.rows_per_second - 1)
        yield (
            f"- Ray instead of local, {most} workers: {ray.start - local.start:+.1f} s at the start, and then "
            f"{more:+.1f} % time a row."
        )


def _billion(figures: Mapping[str, Any], runs: Sequence[Run]) -> Iterator[str]:
    paces = {key: pace for key, line in series(runs).items() if (pace := pace_of(line))}
    most = max((workers for engine, workers in paces if engine == "ray"), default=0)
    if not most:
        return
    rate = paces["ray", most].rows_per_second / most
    hours = BILLION / rate / 3600
    yield "### A billion texts, on paper"
    yield ""
    yield (
        f"One core reads {rate:.1f} texts a second ({paces['ray', most].rows_per_second:.1f} with {most} workers, "
        f"divided by {most})."
    )
    yield ""
    yield _row("what", "arithmetic", "result")
    yield _row("---", "---", "---:")
    yield _row("core-hours, labels only", f"1,000,000,000 / {rate:.1f} / 3,600", f"{hours:,.0f}")
    yield _row(f"hours on {CORES:,} cores", f"{hours:,.0f} / {CORES:,}", f"{hours / CORES:,.1f}")
    yield _row(
        f"cost at {PRICE} dollars a core-hour (assumed)", f"{hours:,.0f} x {PRICE}", f"{hours * PRICE:,.0f} dollars"
    )
    yield from _reasoning(runs)
    for form in ("jsonl", "parquet"):
        size = figures[f"bytes_per_row_{form}"]
        yield _row(f"output as {form}", f"1,000,000,000 x {size:,.0f} bytes", f"{size / 1000:,.2f} TB")
    yield ""
    yield from _bottlenecks(figures, rate)


def _reasoning(runs: Sequence[Run]) -> Iterator[str]:
    lines = series(runs)
    for run in runs:
        pace = pace_of(lines.get((run.engine, run.workers), [])) if run.mode == "explain" else None
        if pace:
            reading = run.seconds - pace.start
            rate = run.rows / reading / run.workers
            told = f"{run.rows} texts / {reading:.1f} s after the start / {run.workers} workers = {rate:.2f} a second"
            hours = BILLION / rate / 3600
            yield _row("core-hours, with reasoning", f"{told}; 1,000,000,000 / {rate:.2f} / 3,600", f"{hours:,.0f}")


def _bottlenecks(figures: Mapping[str, Any], rate: float) -> Iterator[str]:
    """What else has a limit, and how many cores fill it; the lowest comes first."""
    size, noted, counted = (
        figures[name] for name in ("bytes_per_row_jsonl", "parts_noted_per_second", "rows_counted_per_second")
    )
    limits = [
        (
            "all rows into one file, over a link of 10 Gbit/s (assumed)",
            f"1,250,000,000 / {size:,.0f} bytes a row = {LINK / size:,.0f} rows a second",
            LINK / size,
        ),
        (
            "parts, which the asking machine notes one by one",
            f"{noted:,.0f} parts a second x {ROWS_A_PART:,} rows = {noted * ROWS_A_PART:,.0f} rows a second",
            noted * ROWS_A_PART,
        ),
    ]
    yield f"The next bottleneck, where one core reads {rate:.1f} texts a second:"
    yield ""
    yield _row("what", "its limit", "cores that fill it")
    yield _row("---", "---", "---:")
    for what, limit, rows in sorted(limits, key=lambda one: one[2]):
        yield _row(what, limit, f"{rows / rate:,.0f}")
    yield ""
    yield (
        f"Before anything is read, the rows of each file are counted, {counted:,} a second and core: a billion rows in "
        f"one file take 1,000,000,000 / {counted:,} / 3,600 = {BILLION / counted / 3600:.1f} hours, in {CORES:,} files "
        f"on {CORES:,} cores {BILLION / counted / CORES:.0f} seconds. So cut the input into about as many files as "
        "there are cores."
    )


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
