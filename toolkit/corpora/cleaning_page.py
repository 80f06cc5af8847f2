"""The report of a cleaning as a page: counts per reason with examples, labels before and after, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.contract.example import Example
from toolkit.corpora import figures, page
from toolkit.corpora.clean import CleaningReport

_FLAGS = {
    "factual": "a plain statement of fact",
    "low_affect": "hardly any feeling in it",
    "ambiguous": "raters part, and the words point in several ways",
    "sarcastic": "bears marks of irony",
    "outlier": "far from every other text",
    "alike": "says the same as an earlier text",
    "label_error": "the label does not fit the words",
}


def write_cleaning_page(
    path: Path,
    report: CleaningReport,
    flags: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Sequence[Example]],
) -> None:
    """Write the page.

    Args:
        flags: for each flag its ``count`` and ``examples``, each with ``text``, ``score`` and ``note``.
        parts: the clean rows of each part by the name of its file.
    """
    page.write_page(path, "What cleaning did", _sections(report, flags, parts))


def _sections(
    report: CleaningReport, flags: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Sequence[Example]]
) -> Iterator[str]:
    yield page.paragraph(
        f"{report.kept:,} of {report.read:,} rows are kept. Rows that came with soft targets from single raters: "
        f"{report.rated:,}; raters left out: {len(report.raters_left_out):,}; damaged rows passed over: "
        f"{report.damage.count:,}."
    )
    if report.damage.shown:
        yield page.table(("damaged rows, the first of them",), [(cause,) for cause in report.damage.shown])
    yield page.heading("Filters, in their order")
    passages = [(name, p.read, p.dropped, p.weighed_down, p.read - p.dropped) for name, p in report.filters.items()]
    yield page.table(("filter", "rows in", "dropped", "weighed down", "rows out"), passages)
    yield page.heading("Reasons")
    yield page.table(("reason", "dropped", "weighed down", "examples"), _reasons(report))
    if flags:
        yield page.heading("Flags: texts to look at, kept unless the configuration drops them")
        yield page.table(("flag", "texts", "highest scores"), [_flag(name, found) for name, found in flags.items()])
    if report.read:
        yield from _pictures(report)
        yield page.heading("Parts")
        yield page.table(("label", *parts), _labels_of(report, parts))


def _flag(name: str, found: Mapping[str, Any]) -> tuple[str, int, list[str]]:
    notes = [f" ({row['note']})" if row["note"] else "" for row in found["examples"]]
    lines = [f"{row['score']:.2f}  {row['text']}{note}" for row, note in zip(found["examples"], notes, strict=True)]
    return f"{name.replace('_', ' ')}: {_FLAGS[name]}", found["count"], lines


def _labels_of(report: CleaningReport, parts: Mapping[str, Sequence[Example]]) -> Iterator[tuple[str | int, ...]]:
    """How many rows of each part bear each label, the most frequent first, after a line of all rows."""
    counts = [Counter(label for example in rows for label in example.labels) for rows in parts.values()]
    yield ("all rows", *(len(rows) for rows in parts.values()))
    for label, _ in report.labels_read.most_common():
        yield (label, *(count[label] for count in counts))


def _pictures(report: CleaningReport) -> Iterator[str]:
    before, after = report.labels_read, report.labels_kept
    kept = {label: after[label] for label in before}
    yield page.heading("Labels")
    bars = figures.label_bars(kept, "Labels before and after", before, ("before", "after"))
    yield page.picture(bars, "Bars per label before and after cleaning")
    ordered = sorted(before.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(label, count, after[label], _gone(report, label)) for label, count in ordered]
    yield page.table(("label", "before", "after", "gone, and why"), rows)
    lengths = {"before": report.lengths_read, "after": +report.lengths_kept}
    drawn = figures.length_lines({name: counts for name, counts in lengths.items() if counts}, "Words per text")
    yield page.heading("Lengths")
    yield page.picture(drawn, "Words per text before and after cleaning")


def _gone(report: CleaningReport, label: str) -> str:
    """Why rows of ``label`` are gone, the most frequent reason first."""
    return ", ".join(f"{reason} {count:,}" for reason, count in report.dropped_by_label[label].most_common())


def _reasons(report: CleaningReport) -> list[tuple[str, int, int, list[str]]]:
    counts = report.dropped + report.weighed_down
    return [
        (reason, report.dropped[reason], report.weighed_down[reason], report.shown[reason])
        for reason, _ in counts.most_common()
    ]
