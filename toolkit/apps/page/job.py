"""A file of texts on the page: read in the background while the page stays free, by what `emotion-lrm batch` does."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.files import explained
from toolkit.apps.batch import run_batch, wish_of
from toolkit.apps.overview import Overview
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.results import finish
from toolkit.apps.tables import Table
from toolkit.apps.tally import Tally, progress_line
from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings

SHOWN_ROWS = 1000
TELL_EVERY = 0.25  # seconds
ABANDONED = 900.0  # seconds without a look from the page, after which a run is pointless
FORMS = ("csv", "jsonl", "parquet")


class StoppedError(EmotionLRMError):
    """The visitor stopped the run, or went away."""


class Upload:
    """A file that a visitor gave, in a temporary folder that goes away with this object, or with ``discard``.

    Raises:
        FileError: for a full disk and the like; it names the file, not its temporary place.
    """

    def __init__(self, name: str, content: bytes) -> None:
        safe = re.sub(r"[^\w.() -]", "_", name.replace("\\", "/").rpartition("/")[2])[-80:].lstrip(". ") or "texts"
        with explained(safe):
            try:
                self.folder = Path(tempfile.mkdtemp(prefix="emotion-lrm-"))
                self.discard = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
                self.path = self.folder / safe
                self.path.write_bytes(content)
            except OSError as error:
                error.filename = safe
                raise

    def plain(self, sentence: str) -> str:
        """A sentence without the temporary folder, which says nothing to a visitor."""
        return sentence.replace(f"{self.folder}{os.sep}", "")


class Job:
    """The reading of a table, which starts at once in a thread of its own.

    Attributes:
        failure: what ended it before its end, or None.
        overview: what the rows hold together; None until all are read.
    """

    def __init__(self, upload: Upload, table: Table, settings: Settings, shelf: Shelf) -> None:
        self.upload, self.table, self.settings, self._shelf = upload, table, settings, shelf
        self.failure: Exception | None = None
        self.overview: Overview | None = None
        self._told, self._share = "Loading the model …", 0.0
        self._stopped, self._next = False, 0.0
        self._seen = self._began = time.monotonic()
        self._rows = Path(tempfile.mkdtemp(dir=upload.folder), "results.jsonl")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def look(self) -> tuple[float, str]:
        """How much is done, 0 to 1, and a line about it. A run that nobody looks at for long ends."""
        self._seen = time.monotonic()
        return self._share, self._told

    def stop(self) -> None:
        """End it after the next row."""
        self._stopped = True

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(seconds)

    def records(self, limit: int = SHOWN_ROWS) -> list[dict[str, Any]]:
        """The first rows of the result."""
        with open(self._rows, "rb") as lines:
            return [json.loads(line) for line in itertools.islice(lines, limit)]

    def result(self, form: str) -> bytes:
        """The whole result as a file of one of ``FORMS``."""
        if form == "jsonl":
            return self._rows.read_bytes()
        output = self._rows.with_suffix(f".{form}")
        if not output.exists():
            finish(self._rows, output, form, wish_of(self.settings))
        return output.read_bytes()

    def _run(self) -> None:
        overview = Overview()

        def survey(rows: Iterator[dict[str, Any]]) -> None:
            overview.add_all(rows)

        try:
            with self._shelf.borrowed(self.settings, self._tell_loading) as model:
                self._began = time.monotonic()
                run_batch(
                    model, self.table, self._rows, wish=wish_of(self.settings), survey=survey, watch=self._watch
                )  # fmt: skip
        except Exception as error:
            self.failure = error
        else:
            self.overview = overview

    def _tell_loading(self, done: int, total: int, step: str) -> None:
        self._check()
        self._told = f"{step[:1].upper()}{step[1:]} …" if step else self._told
        self._share = done / total if total else 0.0

    def _watch(self, total: int, tally: Tally) -> None:
        self._check()
        if time.monotonic() < self._next and tally.rows < total:
            return
        self._next = time.monotonic() + TELL_EVERY
        self._share = tally.rows / total
        self._told = progress_line(tally, total, 0, time.monotonic() - self._began)

    def _check(self) -> None:
        if self._stopped or time.monotonic() - self._seen > ABANDONED:
            raise StoppedError("The run was stopped.", "Start it again when you like.")
