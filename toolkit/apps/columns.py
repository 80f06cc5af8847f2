"""Which column of a table holds the texts and which the ids: as asked for, else guessed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from toolkit.errors import DataError, UsageError

KNOWN = (
    "text", "comment", "message", "content", "body", "sentence", "utterance", "review", "tweet", "post", "situation",
    "description", "title",
)  # fmt: skip

DATED = (
    "date", "datetime", "timestamp", "time", "created_at", "created_utc", "created", "published_at", "published",
    "posted_at", "posted", "updated_at", "day", "month", "year",
)  # fmt: skip
_DATED_ENDS = ("date", "time", "_at", "_utc", "_on")


def find_column(wanted: str, columns: Sequence[str], option: str) -> int:
    """The position of the column of that name, or of that number from 1 where no column has it for a name.

    Raises:
        UsageError: where there is none, or several.
    """
    if columns.count(wanted) > 1:
        raise UsageError(f"{columns.count(wanted)} columns are named {wanted!r}.", f"Give the number: {option} 1.")
    if wanted in columns:
        return columns.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    near = difflib.get_close_matches(wanted, columns, 1)
    known = ", ".join(columns[:20]) or "none"
    raise UsageError(
        f"There is no column {wanted!r}.", f"Did you mean {near[0]!r}?" if near else f"The columns are: {known}."
    )


def guess_text_column(columns: Sequence[str], sample: Sequence[Sequence[object]]) -> int:
    """The column with a name that texts often have, else the one whose cells hold the most words.

    Raises:
        DataError: where no column holds text.
    """
    named = named_column(columns, KNOWN)
    if named is not None:
        return named
    words = [sum(_words(row[i]) for row in sample if i < len(row)) for i in range(len(columns))]
    if not any(words):
        raise DataError("No column holds text.", "Name it with --text-column.")
    return words.index(max(words))


def named_column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    """The first column that has one of the names, in the order of the names, whatever its case."""
    plain = [column.strip().lower() for column in columns]
    return next((plain.index(name) for name in names if name in plain), None)


def dated_columns(columns: Sequence[str]) -> list[int]:
    """The columns whose names speak of dates, the likeliest first."""
    plain = [column.strip().lower() for column in columns]
    named = [plain.index(name) for name in DATED if name in plain]
    return named + [n for n, name in enumerate(plain) if n not in named and name.endswith(_DATED_ENDS)]


def has_header(first: Sequence[str], second: Sequence[str] | None) -> bool:
    """Whether the first row of a table names its columns: known names, else cells that are short and not like data."""
    if named_column(first, (*KNOWN, "id", "label", "emotion")) is not None:
        return True
    if second is None or any(len(cell) > 60 or cell.count(" ") > 3 or _is_number(cell) for cell in first):
        return False
    return all(cell.strip() for cell in first)


def _words(cell: object) -> int:
    return len(cell.split()) if isinstance(cell, str) and not _is_number(cell) else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
