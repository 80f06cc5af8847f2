"""The per-rater release of GoEmotions: one row for each rater of a text, in whichever form it lies there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.goemotions import HUB_ID, resolve_source
from toolkit.corpora.hub import hub_rows
from toolkit.corpora.tables import Damage, find_file, read_table, refuse
from toolkit.errors import DataError

PARTS = ("goemotions_1.csv", "goemotions_2.csv", "goemotions_3.csv")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Rating:
    """What one rater saw in one text.

    Attributes:
        id: the comment's id.
        labels: in taxonomy order; empty where the rater found the text unclear.
        rater: the rater's number, or None where the file leaves it out.
    """

    id: str
    text: str
    labels: tuple[str, ...]
    rater: str | None


def find_ratings(source: Path) -> list[Path]:
    """The files of the per-rater release under ``source``: ``goemotions/raw/*``, the three parts, or one file.

    The parts and the one file may also lie in ``source`` itself.

    Raises:
        DataError: where only some of the three parts are there, for a text's ratings are spread over all of them.
    """
    raw = source / "goemotions" / "raw"
    files = sorted(p for p in raw.glob("*") if {".csv", ".tsv"} & set(p.suffixes)) if raw.is_dir() else []
    if files:
        return files
    folders = [source / "goemotions", source / "goemotions" / "data", source]
    parts = [find_file(folders, name) for name in PARTS]
    there = [path for path in parts if path is not None]
    if there and len(there) < len(parts):
        missing = PARTS[parts.index(None)]
        raise DataError(f"Of the per-rater release {missing} is missing beside {there[0]}.", "Put all three there.")
    single = find_file(folders, "goemotions.csv")
    return there or ([single] if single else [])


def read_ratings(source: Path | None = None, damage: Damage | None = None) -> Iterator[Rating]:
    """All ratings, file by file.

    Args:
        source: the corpora folder; None takes ``EMOTION_LRM_CORPORA`` or the hub.
        damage: counts damaged rows, which are then passed over.

    Raises:
        DataError: where there are none, a column is missing, or without ``damage`` a row is damaged.
    """
    folder = resolve_source(source)
    columns = ("id", "text", *load_taxonomy("goemotions").labels)
    if folder is None:
        yield from _ratings(hub_rows(HUB_ID, "raw", "train", columns), damage)
        return
    files = find_ratings(folder)
    if not files:
        raise DataError(
            f"There is no per-rater release of GoEmotions in {folder}.",
            f"Put {', '.join(PARTS)} or goemotions.csv into {folder / 'goemotions'}.",
        )
    for path in files:
        yield from _ratings(read_table(path, columns, damage), damage)


def _ratings(rows: Iterable[tuple[str, Mapping[str, Any]]], damage: Damage | None) -> Iterator[Rating]:
    for where, row in rows:
        try:
            rating = _rating(row)
        except ValueError as error:
            refuse(f"{where}, {error}.", damage)
        else:
            yield rating


def _rating(row: Mapping[str, Any]) -> Rating:
    unclear = _truth(row, "example_very_unclear") if "example_very_unclear" in row else False
    labels = tuple(label for label in load_taxonomy("goemotions").labels if _truth(row, label))
    if not row["id"] or not (row["text"] or "").strip():
        raise ValueError("lacks its id or its text")
    rater = str(row["rater_id"]) if row.get("rater_id") not in (None, "") else None
    return Rating(row["id"], row["text"], () if unclear else labels, rater)


def _truth(row: Mapping[str, Any], column: str) -> bool:
    value = str(row[column]).strip().lower()
    if value not in _TRUTH:
        raise ValueError(f"has {row[column]!r} in the column {column}")
    return _TRUTH[value]
