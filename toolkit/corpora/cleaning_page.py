"""The report of a cleaning as a page: counts per reason with examples, labels before and after, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.corpora import figures, page
from toolkit.corpora.clean import CleaningReport


def write_cleaning_page(path: Path, report: CleaningReport, flags: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the page of ``report`` and of the flags, each with ``count`` and ``examples``."""
    page.write_page(path, "What cleaning did", _parts(report, flags))


def _parts(report: CleaningReport, flags: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield page.paragraph(
        f"{report.kept:,} of {report.read:,} rows are kept; {report.rated:,} have soft targets from single raters; "
        f"{len(report.raters_left_out)} raters were left out; {report.damage.count:,} damaged rows were passed over."
    )
    if report.damage.shown:
        yield page.table(("damaged rows, the first of them",), [(cause,) for cause in report.damage.shown])
    yield page.heading("Reasons")
    yield page.table(("reason", "dropped", "weighed down", "examples"), _reasons(report))
    if flags:
        yield page.heading("Flags: texts to look at, kept unless the configuration drops them")
        rows = [(name, found["count"], "\n".join(found["examples"])) for name, found in flags.items()]
        yield page.table(("flag", "texts", "highest scores"), rows)
    if report.read:
        yield from _pictures(report)


def _pictures(report: CleaningReport) -> Iterator[str]:
    before, after = report.labels_read, report.labels_kept
    kept = {label: after[label] for label in before}
    yield page.heading("Labels")
    bars = figures.label_bars(kept, "Labels before and after", before, ("before", "after"))
    yield page.picture(bars, "Bars per label before and after cleaning")
    ordered = sorted(before.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(label, count, after[label], count - after[label]) for label, count in ordered]
    yield page.table(("label", "before", "after", "gone"), rows)
    lengths = {"before": report.lengths_read, "after": +report.lengths_kept}
    drawn = figures.length_lines({name: counts for name, counts in lengths.items() if counts}, "Words per text")
    yield page.heading("Lengths")
    yield page.picture(drawn, "Words per text before and after cleaning")


def _reasons(report: CleaningReport) -> list[tuple[str, int, int, str]]:
    counts = report.dropped + report.weighed_down
    return [
        (reason, report.dropped[reason], report.weighed_down[reason], "\n".join(report.shown[reason]))
        for reason, _ in counts.most_common()
    ]
