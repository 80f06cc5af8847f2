"""An output in parts: each appears whole or not at all, and a manifest says which are finished."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convert.files import explained
from toolkit.apps.both import Pair
from toolkit.apps.journal import check_same
from toolkit.apps.results import finish
from toolkit.apps.tally import Tally
from toolkit.errors import DataError, UsageError
from toolkit.inference.request import Wish

MANIFEST = "_manifest.jsonl"  # readers of a folder of parts leave out names that begin with an underscore
_VERSION = 1
_FRESH = "--overwrite starts afresh."


def part_path(folder: Path, number: int, form: str) -> Path:
    """Where a part lies; the names sort as the input does."""
    return folder / f"part-{number:06d}.{form}"


def write_part(folder: Path, number: int, form: str, lines: bytes, wish: Wish | Pair) -> None:
    """Write a part from its rows as JSON lines. A part that is there already is replaced by the same."""
    with explained(folder), tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as room:
        rows = Path(room, "rows")
        rows.write_bytes(lines)
        finish(rows, part_path(folder, number, form), form, wish)


class Parts:
    """The parts of one run: ``done`` has the numbers of the finished ones, ``total`` the counts over their rows.

    The manifest's first line says what the run is; each further line is a finished part. A last line that was cut
    short is as if it were not there, and its part is made again.
    """

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form
        self.done: set[int] = set()
        self.total = Tally()
        self._manifest = folder / MANIFEST

    def begin(self, identity: Mapping[str, Any], size: int, resume: bool) -> int:
        """Take up a run that was interrupted, or begin one; returns how many rows a part has.

        Raises:
            DataError: where the input has changed, or the manifest cannot be read.
            UsageError: where the interrupted run was asked for something else.
        """
        with explained(self.folder):
            if resume and self._manifest.exists():
                return self._recover(identity)
            if self.folder.exists():
                self._clear()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._append({"version": _VERSION, "identity": dict(identity), "rows_a_part": size})
        return size

    def note(self, number: int, tally: Tally) -> None:
        """Remember that a part is finished and lies in its place."""
        with explained(self._manifest):
            self._append({"part": number, "tally": tally.to_dict()})
        self._count(number, tally)

    def join(self, output: Path, form: str, wish: Wish | Pair) -> None:
        """Make one file of all parts, which are JSON lines, in the order of the input; then remove them."""
        joined = self.folder / "_joined"
        with explained(self.folder):
            with open(joined, "wb") as target:
                for number in sorted(self.done):
                    with open(part_path(self.folder, number, self.form), "rb") as part:
                        shutil.copyfileobj(part, target)
                target.flush()
                os.fsync(target.fileno())
            finish(joined, output, form, wish)
            shutil.rmtree(self.folder)

    def _count(self, number: int, tally: Tally) -> None:
        self.done.add(number)
        self.total.rows += tally.rows
        for counts, more in zip(_counters(self.total), _counters(tally), strict=True):
            counts.update(more)

    def _append(self, line: Mapping[str, Any]) -> None:
        with open(self._manifest, "ab") as manifest:
            manifest.write(json.dumps(line).encode() + b"\n")
            manifest.flush()
            os.fsync(manifest.fileno())

    def _recover(self, identity: Mapping[str, Any]) -> int:
        raw = self._manifest.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            first, *notes = [json.loads(line) for line in whole.splitlines()]
            told, size = first["identity"], int(first["rows_a_part"])
            finished = {int(note["part"]): Tally.from_dict(note["tally"]) for note in notes}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self._manifest} cannot be read.", _FRESH) from None
        check_same(told, identity)
        if whole != raw:
            os.truncate(self._manifest, len(whole))
        for number, tally in finished.items():
            if part_path(self.folder, number, self.form).is_file():
                self._count(number, tally)
        return size

    def _clear(self) -> None:
        """Remove what an earlier run left, and nothing else."""
        for path in self.folder.iterdir():
            if path.name.startswith(".part-") and path.is_dir():
                shutil.rmtree(path)
            elif path.name == MANIFEST or path.match("part-*.jsonl") or path.match("part-*.parquet"):
                path.unlink()


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse early what would be refused after the work.

    Raises:
        UsageError: where there is a run already and nobody said what is to become of it, or something else.
        FileError: no permission, a read-only file system, or a file of that name.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other.", "Choose one.")
    if (folder / MANIFEST).exists():
        if not resume and not overwrite:
            raise UsageError(f"{folder} holds a run already.", f"--resume does what is missing, {_FRESH}")
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something else.", "Choose a folder that is empty or not there yet.")
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder if folder.exists() else folder.parent).close()


def _counters(tally: Tally) -> Sequence[Any]:
    return tally.status, tally.labels, tally.reader, tally.reasons
