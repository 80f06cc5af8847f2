"""The input of a cluster: one file or many, here or in an object store, cut into slices of rows."""

from __future__ import annotations

import contextlib
import fnmatch
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from convert.errors import FileError
from convert.files import explained
from toolkit.apps.tables import Row, Table, open_table
from toolkit.errors import DataError, UsageError

LARGEST_PART = 10_000
SMALLEST_PART = 32
PARTS_A_WORKER = 16  # so that the last ones end at about the same time


@dataclass(frozen=True, slots=True)
class Source:
    """One file: where it lies, and what shows that it has changed."""

    place: str
    size: int
    changed: str

    @contextlib.contextmanager
    def here(self) -> Iterator[Path]:
        """The file as one of this machine: itself, or a copy of what lies in an object store.

        Raises:
            FileError: where it cannot be read.
        """
        if "://" not in self.place:
            yield Path(self.place)
            return
        files, place = _file_system(self.place)
        with explained(self.place), tempfile.TemporaryDirectory(prefix="emotion-lrm-") as room:
            copy = Path(room, Path(place).name)
            with files.open_input_stream(place, compression=None) as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target)
            yield copy


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that are read together: ``rows`` of them from row ``start`` of a file, which is row ``first`` of the input.

    Attributes:
        number: which slice of the input it is, from 0, and so which part of the output.
        file: which file of the input, from 0.
    """

    number: int
    file: int
    start: int
    rows: int
    first: int


def find_sources(pattern: str) -> list[Source]:
    """The files that a path, a folder, a glob or an address such as ``s3://bucket/folder`` stands for, by name.

    In folders, those below count too; names that begin with a dot or an underscore do not.

    Raises:
        FileError: where there is none.
    """
    from pyarrow.fs import FileSelector, FileType

    files, place = _file_system(pattern)
    root = pattern[: len(pattern) - len(place)] if "://" in pattern else ""
    fixed = place.split("*")[0].split("?")[0].split("[")[0]
    is_glob = fixed != place
    with explained(pattern):
        info = files.get_file_info(place)
        if is_glob and info.type == FileType.NotFound:
            base = fixed.rpartition("/")[0] or "/"
            found = files.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
            found = [file for file in found if _matches(file.path, place)]
        elif info.type == FileType.Directory:
            found = [f for f in files.get_file_info(FileSelector(place, recursive=True)) if _is_shown(f.path, place)]
        else:
            found = [info]
    found = sorted((file for file in found if file.type == FileType.File), key=lambda file: str(file.path))
    if not found:
        raise FileError(f"There is no file: {pattern}", "Give a file, a folder or a glob in quotation marks.")
    return [Source(f"{root}{file.path}", file.size, str(file.mtime_ns)) for file in found]


def open_sources(sources: Sequence[Source], **options: Any) -> Table:
    """How the first file is to be read, as :func:`~toolkit.apps.tables.open_table` finds it; it decides for all."""
    with sources[0].here() as path:
        table = open_table(path, **options)
    if len(sources) == 1:
        return table
    return replace(table, notes=(*table.notes, f"{len(sources):,} files are read as the first one is."))


def measure(source: Source, like: Table) -> tuple[Table, int]:
    """How a file is read that must have the columns of the first one, and how many rows it has.

    Raises:
        DataError: damaged, empty, or without these columns.
    """
    with source.here() as path:
        try:
            table = _like(path, like)
        except UsageError as error:
            raise DataError(f"{source.place}: {error}", "All files need the columns of the first one.") from None
        return table, sum(1 for _ in table.rows())


def _like(path: Path, like: Table) -> Table:
    if like.form == "txt" or not like.columns:
        return replace(like, path=path)
    given: dict[str, Any] = {"form": like.form, "text_column": _column(like, like.text)}
    if like.id is not None:
        given["id_column"] = _column(like, like.id)
    if like.form != "parquet":
        given["encoding"] = like.encoding
    if like.form == "csv":
        given |= {"delimiter": like.delimiter, "header": like.header}
    table = open_table(path, **given)
    return table if like.id is not None else replace(table, id=None)


def _column(table: Table, position: int) -> str:
    name = table.columns[position]
    return name if table.columns.count(name) == 1 else str(position + 1)


def cut(rows: Sequence[int], size: int) -> list[Slice]:
    """Slices of at most ``size`` rows; none reaches over the end of a file.

    >>> [(s.file, s.start, s.rows, s.first) for s in cut([3, 0, 1], 2)]
    [(0, 0, 2, 0), (0, 2, 1, 2), (2, 0, 1, 3)]
    """
    slices: list[Slice] = []
    first = 0
    for file, count in enumerate(rows):
        for start in range(0, count, size):
            slices.append(Slice(len(slices), file, start, min(size, count - start), first + start))
        first += count
    return slices


def part_size(rows: int, workers: int) -> int:
    """How many rows a part has: many parts for each worker, but neither tiny ones nor ones that take an hour."""
    return min(max(rows // (workers * PARTS_A_WORKER), SMALLEST_PART), LARGEST_PART)


class Place:
    """Where a worker is in the input: slices come in rising order, so it reads on and need not begin again."""

    def __init__(self, sources: Sequence[Source], tables: Sequence[Table]) -> None:
        self._sources, self._tables = sources, tables
        self._file, self._next = -1, 0
        self._rows: Iterator[Row] = iter(())
        self._held = contextlib.ExitStack()

    def rows(self, wanted: Slice) -> list[Row]:
        """The rows of a slice, numbered through the whole input.

        Raises:
            DataError: where the file has fewer rows than it had.
        """
        if wanted.file != self._file or wanted.start < self._next:
            self._held.close()
            path = self._held.enter_context(self._sources[wanted.file].here())
            self._rows, self._file, self._next = replace(self._tables[wanted.file], path=path).rows(), wanted.file, 0
        ahead = wanted.start - self._next
        found = list(islice(self._rows, ahead, ahead + wanted.rows))
        self._next = wanted.start + wanted.rows
        if len(found) < wanted.rows:
            raise DataError(f"{self._sources[wanted.file].place} became shorter.", "Restore it, then --resume.")
        table = self._tables[wanted.file]
        return [_renumbered(row, wanted.first - wanted.start, table.id is None) for row in found]


def _renumbered(row: Row, before: int, no_ids: bool) -> Row:
    """The row with the rows of the files before it counted in; where the table has no ids, the number is the id."""
    number = row.number + before
    return replace(row, number=number, id=number if no_ids else row.id)


def _file_system(place: str) -> tuple[Any, str]:
    """The file system of pyarrow that an address belongs to, and the path there."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in place:
        return LocalFileSystem(), str(Path(place).absolute())
    try:
        files, path = FileSystem.from_uri(place)
    except ValueError as error:  # ArrowInvalid
        raise UsageError(
            f"{place} is no address that can be read: {error}.", "For example s3://bucket/folder."
        ) from None
    return files, str(path)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a glob in which a star stops at a slash and two stars do not."""
    parts, wanted = path.split("/"), pattern.split("/")
    return _fits(parts, wanted) and not parts[-1].startswith((".", "_"))


def _fits(parts: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(parts[n:], wanted[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _is_shown(path: str, root: str) -> bool:
    below = path[len(root.rstrip("/")) :].strip("/")
    return not any(name.startswith((".", "_")) for name in below.split("/"))
