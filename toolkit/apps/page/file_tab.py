"""A file of texts: give it, say which column holds the texts, watch it being read, and take the result away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import PurePath
from typing import Any

import streamlit as st

from toolkit.apps.escape import visible
from toolkit.apps.overview import Overview, View
from toolkit.apps.page import markup, trouble
from toolkit.apps.page.choice import choose
from toolkit.apps.page.job import FORMS, SHOWN_ROWS, Job, Upload
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.panel import percent
from toolkit.apps.tables import Table, open_table
from toolkit.apps.tally import readings
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings

ACCEPTED = ("csv", "tsv", "tab", "jsonl", "ndjson", "txt", "parquet", "gz")
LOOK_EVERY = 1.0  # seconds
_MIME = {"csv": "text/csv", "jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
# How a file is to be read: what is offered, and what it means for open_table.
_DELIMITERS = {"as found": None, "comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_ENCODINGS = {"as found": None, "utf-8": "utf-8", "cp1252": "cp1252", "latin-1": "latin-1", "utf-16": "utf-16"}
_HEADERS = {"as found": None, "names": True, "a text": False}


def show(settings: Settings, shelf: Shelf) -> None:
    """Draw the tab."""
    given = st.file_uploader(
        "File with texts", ACCEPTED, key="file", help="CSV, TSV, JSON lines, plain text with a text a line, or Parquet."
    )
    if given is None:
        _forget()
        st.html(
            markup.remark("Every row is read, and gives one row of the result. The file is deleted when you leave.")
        )
        return
    upload = _kept(given)
    job: Job | None = st.session_state.get("job")
    if job is None:
        with trouble.told(upload.plain):
            _before(upload, settings, shelf)
    elif job.running:
        _watch()
    else:
        _after(job)


def _kept(given: Any) -> Upload:
    """The upload on disk; another file replaces it and ends what was done with the last one.

    Raises:
        FileError: as Upload; the next run tries again.
    """
    if st.session_state.get("upload-id") != given.file_id:
        _forget()
        st.session_state["upload"] = Upload(given.name, given.getvalue())
        st.session_state["upload-id"] = given.file_id
    upload: Upload = st.session_state["upload"]
    return upload


def _forget() -> None:
    _drop_job()
    for key in ("upload", "upload-id"):
        st.session_state.pop(key, None)


def _drop_job() -> None:
    job: Job | None = st.session_state.pop("job", None)
    if job is not None:
        job.stop()


# Before


def _before(upload: Upload, settings: Settings, shelf: Shelf) -> None:
    table = _table(upload)
    if table.columns:
        # Without a key: where the columns or the guess are others, it is another box and begins with the guess.
        position = st.selectbox(
            "Column with the texts", range(len(table.columns)), index=table.text, width=300,
            format_func=_told_apart(table.columns).__getitem__,
        )  # fmt: skip
        table = replace(table, text=position)
    st.html(markup.remark("The first texts:") + markup.lines(row.text for row in islice(table.rows(), 5)))
    chosen = choose(settings, "file")
    if st.button("Read the file", type="primary", key="read-file"):
        st.session_state["job"] = Job(upload, table, chosen, shelf)
        st.rerun()


def _told_apart(columns: Sequence[str]) -> list[str]:
    """The names of the columns, with numbers where several have the same: Streamlit knows an option by its name."""
    names = list(map(visible, columns))
    often = Counter(names)
    return [f"{name} (column {n})" if often[name] > 1 else name for n, name in enumerate(names, 1)]


def _table(upload: Upload) -> Table:
    """The file as it was found to be, or as the visitor says that it is."""

    def choice(label: str, offered: Mapping[str, Any]) -> Any:
        # What was said of one file says nothing of the next.
        return offered[st.selectbox(label, offered, width=160, key=f"{label}-{upload.folder.name}")]

    with st.expander("Does it look wrong?", key="form"), st.container(horizontal=True):
        delimiter = choice("Cells end with", _DELIMITERS)
        encoding = choice("Encoding", _ENCODINGS)
        header = choice("The first row holds", _HEADERS)
    return open_table(upload.path, delimiter=delimiter, encoding=encoding, header=header)


# Meanwhile


@st.fragment(run_every=LOOK_EVERY)
def _watch() -> None:
    job: Job | None = st.session_state.get("job")
    if job is None or not job.running:
        st.rerun()
        return
    share, line = job.look()
    st.progress(share, "Reading …")
    st.html(markup.remark(line))
    if st.button("Stop", key="stop"):
        job.stop()
        job.wait()
        st.rerun()


# Afterwards


def _after(job: Job) -> None:
    if job.overview is None:
        trouble.show(job.failure or EmotionLRMError("The run ended.", "Start it again."), job.upload.plain)
        st.button("Back", key="back", on_click=_drop_job)
        return
    with trouble.told(job.upload.plain):
        _downloads(job)
        _charts(job.overview)
        _rows(job)
    st.button("Read it another way", key="again", on_click=_drop_job)


def _downloads(job: Job) -> None:
    stem = PurePath(job.upload.path).name.partition(".")[0]
    with st.container(horizontal=True, key="downloads"):
        for form in FORMS:
            st.download_button(
                f"Download {form.upper() if form != 'parquet' else 'Parquet'}", partial(job.result, form),
                f"{stem}-emotions.{form}", _MIME[form], on_click="ignore", key=f"download-{form}",
                type="primary" if form == "csv" else "secondary",
            )  # fmt: skip


def _charts(overview: Overview) -> None:
    tally = overview.tally
    tiles = [("rows", f"{tally.rows:,}")]
    tiles += [(name, f"{tally.status[name]:,}") for name in ("empty", "error") if tally.status[name]]
    tiles += [(f"unsure{_about(view, overview)}", percent(view.abstained / view.texts)) for view in overview.views]
    parted = overview.parting
    if parted is not None and parted.all.texts:
        tiles.append(("mean divergence", f"{parted.all.mean:.2f}"))
    if parted is not None and parted.incomparable:
        tiles.append(("not comparable", f"{parted.incomparable:,}"))
    st.html(markup.tiles(tiles))
    if tally.reasons:
        st.html(
            markup.table(("why rows failed", "rows"), [(r, f"{n:,}") for r, n in tally.reasons.items()], "Failures")
        )
    charts = [
        chart
        for view in overview.views
        for chart in (
            markup.counts(f"Labels{_about(view, overview)}", view.labels),
            markup.histogram(f"How sure the model is{_about(view, overview)}", view.steps, ("unsure", "sure")),
        )
    ]
    if parted is not None and parted.all.texts:
        charts.append(markup.histogram("How far the lenses part", parted.steps, ("alike", "apart")))
    st.html(f'<div class="pair">{"".join(charts)}</div>' if charts else markup.remark("No text was read."))


def _about(view: View, overview: Overview) -> str:
    return f", {markup.LENS_NAMES[Lens(view.lens)].lower()}" if len(overview.views) > 1 else ""


def _rows(job: Job) -> None:
    shown = [_line(record) for record in job.records()]
    share = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    config = dict.fromkeys(("confidence", "author sure", "reader sure", "divergence"), share)
    st.dataframe(shown, hide_index=True, column_config=config, alt="The rows of the result", key="rows")
    if job.overview is not None and job.overview.tally.rows > SHOWN_ROWS:
        st.html(markup.remark(f"The first {SHOWN_ROWS:,} rows; the download has all of them."))


def _line(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result as the table shows it."""
    found = readings(record)
    line: dict[str, Any] = {"id": visible(str(record["id"])), "text": visible(record["text"])}
    if "divergence" in record:
        author, reader = found or (None, None)
        line |= {"author": author and author["emotion"], "author sure": author and author["confidence"]}
        line |= {"reader": reader and reader["emotion"], "reader sure": reader and reader["confidence"]}
        line["divergence"] = record["divergence"] and record["divergence"]["score"]
    else:
        line |= {"emotion": record["emotion"], "confidence": record["confidence"]}
        line |= {"also": ", ".join(record["emotions"][1:]), "reasoning": visible(record["reasoning"] or "")}
    return line | {"status": record["status"], "error": visible(record["error"] or "")}
