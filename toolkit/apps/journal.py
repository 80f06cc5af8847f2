"""A run that survives its end: rows go to ``OUTPUT.partial``; ``OUTPUT.journal`` says how far to trust them."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from convert.errors import FileError
from convert.files import explained, locked
from toolkit.apps.tally import Tally
from toolkit.errors import DataError, UsageError

CHECKPOINT_EVERY = 2.0
_VERSION = 1
_FRESH = "--overwrite starts afresh."


def check_destination(output: Path, resume: bool, overwrite: bool) -> None:
    """Refuse early what would be refused after the work.

    Raises:
        UsageError: where there is output or an interrupted run, and nobody said what is to become of it.
        FileError: a folder, no permission, a read-only file system.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other.", "Choose one.")
    if output.is_dir():
        raise FileError(f"This is a folder, not a file: {output}", "Give the path of a file.")
    partial, _ = paths(output)
    if not resume and not overwrite:
        if output.exists():
            raise UsageError(f"{output} exists already.", "--overwrite replaces it.")
        if partial.exists():
            raise UsageError(f"A run for {output} was interrupted.", f"--resume continues it, {_FRESH}")
    with explained(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()


def paths(output: Path) -> tuple[Path, Path]:
    """Where the rows and the journal of an unfinished output lie."""
    return output.with_name(f"{output.name}.partial"), output.with_name(f"{output.name}.journal")


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Let no second run write the same output.

    Raises:
        UsageError: where another run does.
    """

    def refuse() -> None:
        raise UsageError(f"Another run is writing {output}.", "Wait for it, or choose another output.")

    with locked(output, refuse):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                output.with_name(f".{output.name}.lock").unlink()


class Journal:
    """The rows written so far and the notes about them. ``tally`` counts what is in the partial file.

    Every two seconds the rows are flushed to the disk and then a line is added to the journal: up to there the rows
    are trusted. Rows after that are checked one by one, and the first that is not whole is cut off.
    """

    _rows: BinaryIO | None = None
    _notes: BinaryIO | None = None

    def __init__(self, output: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self.partial, self.path = paths(output)
        self.tally = Tally()
        self._checked = time.monotonic()
        with explained(self.partial):
            if not (resume and self._recover(identity)):
                self._begin(identity)
            self._rows = open(self.partial, "ab")  # noqa: SIM115 - close() closes it
            self._notes = open(self.path, "ab")  # noqa: SIM115

    def add(self, line: bytes, record: Mapping[str, Any]) -> None:
        """Append the next row: the line, and the record that it holds."""
        assert self._rows is not None
        with explained(self.partial):
            self._rows.write(line)
        self.tally.add(record)
        if time.monotonic() - self._checked > CHECKPOINT_EVERY:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring all rows to the disk and note it."""
        assert self._rows is not None
        assert self._notes is not None
        with explained(self.partial):
            self._rows.flush()
            os.fsync(self._rows.fileno())
            note = {"bytes": self._rows.tell(), "tally": self.tally.to_dict()}
            self._notes.write(json.dumps(note).encode() + b"\n")
            self._notes.flush()
        self._checked = time.monotonic()

    def close(self) -> None:
        """Write what is left. On a full disk that fails once more, which was said already."""
        for file in (self._rows, self._notes):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    def forget(self) -> None:
        """Remove both files: the output is complete. The rows go first, for rows without a journal say nothing."""
        self.close()
        self.partial.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _begin(self, identity: Mapping[str, Any]) -> None:
        self.tally = Tally()
        self.partial.unlink(missing_ok=True)
        # Written in place: as long as there are no rows, nobody reads a journal that a crash cut short.
        with open(self.path, "wb") as journal:
            journal.write(json.dumps({"version": _VERSION, "identity": dict(identity)}).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())

    def _recover(self, identity: Mapping[str, Any]) -> bool:
        """Take up an interrupted run; False where there is none."""
        if not self.partial.exists():
            return False
        start = self._last_note(identity)
        with open(self.partial, "r+b") as rows:
            size = rows.seek(0, os.SEEK_END)
            if size < start:
                raise DataError(f"{self.partial} is shorter than its journal says.", _FRESH)
            rows.seek(start)
            end = start
            for line in rows:
                record = _whole(line)
                if record is None or record["row"] != self.tally.rows:
                    break
                self.tally.add(record)
                end += len(line)
            rows.truncate(end)
        return True

    def _last_note(self, identity: Mapping[str, Any]) -> int:
        """Check that it is the same run, and return the byte up to which the rows are trusted."""
        try:
            first, *notes = self.path.read_bytes().split(b"\n")
            begun = json.loads(first)
            told = begun["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{self.partial} has no journal that can be read.", _FRESH) from None
        check_same(told, identity)
        for note in reversed(notes[:-1]):  # what follows the last line end was not written to its end
            found = _note(note)
            if found is not None:
                self.tally = Tally.from_dict(found["tally"])
                return int(found["bytes"])
        return 0


def check_same(told: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a run that was asked for something else.

    Args:
        told: what the interrupted run says of itself.
        wanted: what this run would say, ``input`` among it.

    Raises:
        DataError: where the input is another.
        UsageError: where anything else is.
    """
    for key, value in wanted.items():
        if told.get(key) == value:
            continue
        if key == "input":
            raise DataError("The input has changed since the run was interrupted.", f"Restore it; {_FRESH}")
        cause = f"The interrupted run had another {key}: {told.get(key)!r}, not {value!r}."
        raise UsageError(cause, f"Ask for the same; {_FRESH}")


def _whole(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"row", "status", "error"} <= record.keys() else None


def _note(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"bytes", "tally"} <= found.keys() else None
