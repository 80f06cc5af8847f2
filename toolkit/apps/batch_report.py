"""The report of a batch: what its texts hold, over time where they are dated, and where two lenses part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.files import replacing
from toolkit.apps.overview import STEPS, Overview, Parted, Parting, View
from toolkit.apps.periods import DateColumn, find_dates, read_dates
from toolkit.apps.tables import Table
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import document, plots
from toolkit.evaluation.document import (
    Block,
    Figure,
    Heading,
    Tiles,
    Words,
    write_html,
    write_pictures,
)
from toolkit.inference.divergence import LEFT_OUT, SHARED

DRAWN_LABELS = 6
FEWEST_TEXTS = 5
"""From how many texts on a label's mean divergence is ranked."""
SHOWN_PAIRS = 5
_CORPORA = (
    "The author's lens was learned from what raters read into comments, the reader's from the feelings that speakers "
    "set out to convey. A difference between the lenses contains the difference between these corpora, and says "
    "nothing about what anybody meant."
)


class BatchReport:
    """The report of one run: made before the work, fed once with the finished rows, and then written.

    Args:
        date_column: its name or number; None lets it be found.

    Raises:
        UsageError: where there is no such column.
        DataError: where it holds no dates.
    """

    def __init__(self, table: Table, folder: Path, date_column: str | None = None) -> None:
        self.folder = folder
        self._table, self._overview = table, Overview()
        self._dates = find_dates(table, date_column)
        self.notes = () if self._dates is None or date_column else (self._dates.note,)

    def survey(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the rows of the output, all of them, one at a time."""
        self._overview.add_all(rows, read_dates(self._table, self._dates) if self._dates else None)

    def write(self) -> list[str]:
        """Write what :func:`write_batch_report` does."""
        return write_batch_report(self._overview, f"What {self._table.path.name} holds", self.folder, self._dates)


def write_batch_report(overview: Overview, title: str, folder: Path, dates: DateColumn | None = None) -> list[str]:
    """Write ``report.html``, ``report.json`` and the pictures into ``folder``; returns their names.

    The texts stand in ``report.html`` alone.

    Raises:
        EmotionLRMError: where matplotlib is missing.
        FileError: where the folder cannot be written.
    """
    plots.require_matplotlib()
    blocks = list(_blocks(overview, dates))
    pictures = write_pictures(folder, blocks)
    with replacing(folder / "report.json") as temporary:
        told = json.dumps(to_json(overview, dates), indent=1, ensure_ascii=False)
        temporary.write_text(told + "\n", encoding="utf-8", errors="backslashreplace")
    write_html(folder / "report.html", title, blocks)
    return ["report.html", "report.json", *pictures]


# What stands in it


def _blocks(overview: Overview, dates: DateColumn | None) -> Iterator[Block]:
    tally = overview.tally
    statuses = [(name, f"{tally.status[name]:,}", "") for name in ("ok", "empty", "error")]
    abstained = [
        (
            f"abstained{_about(view, overview)}",
            _percent(view.abstained, view.texts),
            f"{view.abstained:,} of {view.texts:,}",
        )
        for view in overview.views
    ]
    yield Tiles([("rows", f"{tally.rows:,}", ""), *statuses, *abstained])
    if tally.reasons:
        yield document.Table(("why rows failed", "rows"), tally.reasons.most_common(), foreign=True)
    for view in overview.views:
        yield from _view(view, overview, dates)
    if overview.parting is not None:
        yield from _parting(overview.parting)


def _about(view: View, overview: Overview) -> str:
    return f", {view.lens} lens" if len(overview.views) > 1 else ""


def _view(view: View, overview: Overview, dates: DateColumn | None) -> Iterator[Block]:
    about, prefix = _about(view, overview), f"{view.lens}_" if len(overview.views) > 1 else ""
    yield Heading(f"Labels{about}")
    counts = dict(view.labels.most_common())
    title = f"Most probable labels of {view.texts:,} texts{about}"
    yield Figure(f"{prefix}label_distribution.png", plots.bars({"": counts}, title, "texts"), title)
    yield document.Table(
        ("label", "texts", "share"), [(name, n, _percent(n, view.texts)) for name, n in counts.items()]
    )
    missing = [label for label in load_taxonomy(view.taxonomy).labels if label not in counts]
    if missing:
        yield Words(f"Most probable for no text: {', '.join(missing)}.")
    if dates is not None and view.timeline.periods:
        yield from _over_time(view, overview, dates, about, prefix)
    yield Heading(f"How sure the model is{about}")
    drawn = plots.histogram(view.steps, f"Confidence{about}", "probability of the most probable label")
    yield Figure(f"{prefix}confidence.png", drawn, "How many texts have which confidence")
    for words, rows in (("most", view.surest.rows()), ("least", view.least_sure.rows())):
        found = [(row["text"], row["emotion"], row["confidence"], str(row["row"])) for row in rows]
        yield document.Table((f"{words} certain texts", "label", "confidence", "row"), found, foreign=True)


def _over_time(view: View, overview: Overview, dates: DateColumn, about: str, prefix: str) -> Iterator[Block]:
    yield Heading(f"Over time{about}")
    periods = view.timeline.in_order()
    title = f"Labels by {view.timeline.unit}{about}"
    drawn = plots.shares_over_time(periods, _by_period(view, periods), title)
    yield Figure(f"{prefix}over_time.png", drawn, title)
    told = f"Dates are those of the column {dates.name}, read as {dates.form}, in UTC where they say their time zone."
    left = view.texts - overview.dated
    yield Words(f"{told} Texts without a date that can be read: {left:,}." if left else told)


def _by_period(view: View, periods: Sequence[str]) -> dict[str, list[int]]:
    """The most frequent labels in every period, and all others together."""
    leaders = [label for label, _ in view.labels.most_common(DRAWN_LABELS)]
    found = [view.timeline.periods.get(period, Counter()) for period in periods]
    counts = {label: [period[label] for period in found] for label in leaders}
    if len(view.labels) > len(leaders):
        counts["all others"] = [p.total() - sum(p[label] for label in leaders) for p in found]
    return counts


def _parting(parting: Parting) -> Iterator[Block]:
    yield Heading("Where the lenses part")
    yield from map(Words, _sentences(parting))
    if not parting.all.texts:
        return
    labels = [label for label in load_taxonomy(SHARED).labels if label != LEFT_OUT]
    matrix = np.array([[parting.together[author, reader] for reader in labels] for author in labels])
    sides = ("author lens leans to", "reader lens leans to")
    drawn = plots.matrix_map(matrix, (labels, labels), "Leanings of the two lenses: texts", sides, shares=False)
    yield Figure("lenses.png", drawn, "How often the author lens and the reader lens leaned to which shared labels")
    rows = [
        (
            label,
            counts.texts,
            counts.mean,
            _percent(counts.above, counts.texts) if parting.noise_line is not None else "not measured",
        )
        for label, counts in _ranked(parting)
    ]
    yield document.Table(("author lens leans to", "texts", "mean divergence", "above the noise line"), rows)
    if len({counts.texts < FEWEST_TEXTS for counts in parting.by_label.values()}) == 2:
        yield Words(f"Labels with fewer than {FEWEST_TEXTS} texts stand last: their mean says little.")
    drawn = plots.histogram(parting.steps, "Divergence of the two lenses", "Jensen-Shannon divergence, 0 to 1")
    yield Figure("divergence.png", drawn, "How many texts have which divergence")
    found = [
        (r["text"], r["author"], r["reader"], parting.together[r["author"], r["reader"]], r["score"], str(r["row"]))
        for r in _examples(parting)
    ]
    if found:
        heads = ("where they part most often", "author lens", "reader lens", "texts", "divergence", "row")
        yield document.Table(heads, found, foreign=True)


def _sentences(parting: Parting) -> Iterator[str]:
    """What was measured, and no more."""
    texts = parting.all.texts
    yield (
        f"On {texts:,} of {texts + parting.incomparable:,} texts the lenses can be compared: there each of them sees "
        "enough of the nine labels that both share, neutral left out."
    )
    if texts:
        alike = sum(count for (author, reader), count in parting.together.items() if author == reader)
        yield (
            f"In {_percent(alike, texts)} of these both lean to the same of the nine labels. The mean divergence is "
            f"{parting.all.mean:.2f}, where 0 is the same distribution and 1 no label in common."
        )
        if parting.noise_line is None:
            yield "How much of the divergence is noise was not measured for this model."
        else:
            yield (
                f"{_percent(parting.all.above, texts)} of these texts lie above the noise line of "
                f"{parting.noise_line:.2f}, which two models of one lens passed on one comment in twenty."
            )
    yield _CORPORA


def _ranked(parting: Parting) -> list[tuple[str, Parted]]:
    """The shared labels of the author's lens, the one on which the lenses part most first, those of few texts last."""
    return sorted(parting.by_label.items(), key=lambda pair: (pair[1].texts < FEWEST_TEXTS, -pair[1].mean))


def _examples(parting: Parting) -> list[dict[str, Any]]:
    """Some texts for each of the pairs of different labels that the lenses lean to most often."""
    pairs = [pair for pair, _ in parting.together.most_common() if pair in parting.examples]
    return [row for pair in pairs[:SHOWN_PAIRS] for row in parting.examples[pair].rows()]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


# Figures


def to_json(overview: Overview, dates: DateColumn | None) -> dict[str, Any]:
    """Everything that the report shows but the texts."""
    tally, parting = overview.tally, overview.parting
    return {
        "rows": tally.rows,
        "status": dict(tally.status),
        "date_column": dates and dates.name,
        "dated": overview.dated,
        "lenses": [_view_json(view) for view in overview.views],
        "divergence": parting and _parting_json(parting),
    }


def _view_json(view: View) -> dict[str, Any]:
    return {
        "lens": view.lens,
        "taxonomy": view.taxonomy,
        "texts": view.texts,
        "abstained": view.abstained,
        "labels": dict(view.labels.most_common()),
        "confidence": {"steps": STEPS, "texts": view.steps},
        "most_certain": _textless(view.surest.rows()),
        "least_certain": _textless(view.least_sure.rows()),
        "over_time": {
            "unit": view.timeline.unit,
            "periods": {name: dict(view.timeline.periods[name]) for name in sorted(view.timeline.periods)},
        },
    }


def _parting_json(parting: Parting) -> dict[str, Any]:
    def told(counts: Parted) -> dict[str, Any]:
        above = counts.above if parting.noise_line is not None else None
        return {"texts": counts.texts, "mean": round(counts.mean, 6), "above_noise_line": above}

    return {
        **told(parting.all),
        "incomparable": parting.incomparable,
        "noise_line": parting.noise_line,
        "by_author_label": {label: told(counts) for label, counts in _ranked(parting)},
        "together": [
            {"author": author, "reader": reader, "texts": count}
            for (author, reader), count in parting.together.most_common()
        ],
        "examples": _textless(_examples(parting)),
    }


def _textless(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "text"} for row in rows]
