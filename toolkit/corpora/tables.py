"""Rows of tables, packed or plain, with or without a header; damage is named, or counted where a caller asks."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from toolkit.errors import DataError

SHOWN = 5  # damaged rows that a report shows

_LARGEST_CELL = 1 << 17  # characters; no corpus comes near it, a lost quotation mark does


@dataclass
class Damage:
    """The rows that a reader had to pass over: how many, and the first of them."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def note(self, cause: str) -> None:
        """Count one row; ``cause`` names its file and line."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(cause)


def refuse(cause: str, damage: Damage | None) -> None:
    """Count a damaged row in ``damage``; without one, the first such row ends the reading.

    Raises:
        DataError: where ``damage`` is None.
    """
    if damage is None:
        raise DataError(cause, "Restore the file.")
    damage.note(cause)


def find_file(folders: Sequence[Path], *names: str) -> Path | None:
    """The first of ``names``, plain or with ``.gz``, that one of ``folders`` holds."""
    paths = (folder / f"{name}{end}" for name in names for folder in folders for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """The file as text; bytes that are no UTF-8 come as lone surrogates, so that they spoil only their row.

    Raises:
        DataError: for a file that is empty, in UTF-16, cannot be read, or whose packing is broken.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as packed:
            _check_start(path, packed.peek(2)[:2])
            with io.TextIOWrapper(packed, "utf-8-sig", "surrogateescape", newline="") as file:
                yield file
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is cut off or no gzip file.", "Restore the file.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None


def _check_start(path: Path, start: bytes) -> None:
    if not start:
        raise DataError(f"{path} is empty.", "Restore the file.")
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{path} is in UTF-16.", "Save it as UTF-8.")


def read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The tab-separated rows of a file without header, each with the words that name its place."""
    with open_text(path) as file:
        for number, line in enumerate(_lines(file), 1):
            yield f"{path}, line {number}", line.split("\t")


def read_table(
    path: Path, columns: Sequence[str], damage: Damage | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file with a header, as mappings from column to cell, each with the words that name its place.

    A name with ``.csv`` means commas and quotes; any other means tabs and no quoting.

    Args:
        columns: those that must be there; further ones are handed on.

    Raises:
        DataError: for a missing or doubled column, and for a damaged row where ``damage`` is None.
    """
    with open_text(path) as file:
        rows = _csv_rows(path, file) if ".csv" in path.suffixes else (line.split("\t") for line in _lines(file))
        yield from match_header(str(path), rows, columns, damage)


def match_header(
    name: str, rows: Iterator[list[str]], columns: Sequence[str], damage: Damage | None, loose: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the first row as the header and the others by it.

    Args:
        name: what errors call the file.
        loose: rows may lack columns after the last of ``columns`` or have further cells.
    """
    header = [cell.strip() for cell in next(rows, [])]
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(header[:8]) or "nothing"
        raise DataError(f"{name} lacks the column {missing[0]!r}.", f"Its first columns are: {found}.")
    double = [column for column in columns if header.count(column) > 1]
    if double:
        raise DataError(f"{name} has the column {double[0]!r} twice.", "Restore the file, or rename one of them.")
    least = 1 + max(header.index(column) for column in columns) if loose else len(header)
    for number, row in enumerate(rows, 2):
        where = f"{name}, line {number}"
        if len(row) < least or (len(row) > len(header) and not loose):
            refuse(f"{where}, has {len(row)} columns where the header has {len(header)}.", damage)
        elif broken_text("".join(row)):
            refuse(f"{where}, is not valid UTF-8.", damage)
        else:
            yield where, dict(zip(header, row, strict=False))


def broken_text(text: str) -> bool:
    """Whether bytes that were no UTF-8 stand in ``text``."""
    return any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else False


def _lines(file: IO[str]) -> Iterator[str]:
    """Lines as ``\\n`` ends them: a lone carriage return stays inside its row."""
    buffer = ""
    while block := file.read(1 << 16):
        *lines, buffer = (buffer + block).split("\n")
        yield from (line.removesuffix("\r") for line in lines)
    if buffer:
        yield buffer.removesuffix("\r")


def _csv_rows(path: Path, file: IO[str]) -> Iterator[list[str]]:
    csv.field_size_limit(_LARGEST_CELL)  # the limit is the module's own, and other readers raise it
    try:
        yield from csv.reader(file)
    except csv.Error as error:
        raise DataError(f"{path} is no readable CSV: {error}.", "Restore the file.") from None
