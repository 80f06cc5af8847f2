"""The rows that come out: one record each, and the finished file as JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convert.files import explained, replacing
from toolkit.apps.both import Pair
from toolkit.apps.tables import Row, import_parquet
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.inference.request import Wish

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_HEAD = ("id", "row", "status", "error", "text")
_READING = (
    "lens", "taxonomy", "mode", "emotion", "fine_emotion", "confidence", "abstained", "emotions", "coverage", "outside",
    "reasoning", "evidence", "model",
)  # fmt: skip
_DIVERGENCE = (
    ("score",), ("outside", "author"), ("outside", "reader"), ("author_emotion",), ("reader_emotion",), ("noise_line",),
    ("summary",),
)  # fmt: skip
_FRACTIONS = {"scores", "score", "confidence", "coverage", "outside", "noise_line"}
_BATCH = 1024


def output_form(output: Path) -> str:
    """``jsonl``, ``csv`` or ``parquet``, by the name.

    Raises:
        UsageError: for any other name, and for Parquet where pyarrow is missing.
    """
    form = SUFFIXES.get(output.suffix.lower())
    if form is None:
        raise UsageError(f"{output.name} does not say its form.", f"End it with {', '.join(SUFFIXES)}.")
    if form == "parquet":
        import_parquet()
    return form


def record_of(row: Row, outcome: Analysis | Comparison | str | None, wish: Wish | Pair, model: str) -> dict[str, Any]:
    """The object of one row.

    Args:
        outcome: the reading, or the two compared; None for a text without words; a sentence where it failed.
    """
    error = outcome if isinstance(outcome, str) else None
    status = "error" if error is not None else "empty" if outcome is None else "ok"
    head = {"id": row.id, "row": row.number, "status": status, "error": error}
    if isinstance(outcome, (Analysis, Comparison)):
        return head | outcome.to_dict()
    if isinstance(wish, Pair):
        return head | {"text": row.text, "author": None, "reader": None, "divergence": None}
    return head | {
        "text": row.text, "lens": str(wish.lens), "taxonomy": wish.taxonomy, "mode": wish.mode, "emotion": None,
        "fine_emotion": None, "confidence": None, "abstained": None, "emotions": [], "scores": None, "coverage": None,
        "outside": None, "reasoning": None, "evidence": [], "model": model,
    }  # fmt: skip


def finish(partial: Path, output: Path, form: str, wish: Wish | Pair) -> None:
    """Make the output of the finished rows, whole or not at all."""
    if form == "jsonl":
        with explained(output):
            partial.replace(output)
        return
    write = _write_csv if form == "csv" else _write_parquet
    with replacing(output) as temporary:
        write(partial, temporary, _columns(wish))


Columns = dict[str, tuple[str, ...]]


def _columns(wish: Wish | Pair) -> Columns:
    """The columns of a flat table, and where the value of each stands in the object of a row."""
    head: Columns = {name: (name,) for name in _HEAD}
    if isinstance(wish, Wish):
        return head | _reading_columns(wish, ())
    parted = {"_".join(("divergence", *path)): ("divergence", *path) for path in _DIVERGENCE}
    return head | _reading_columns(wish.author, ("author",)) | _reading_columns(wish.reader, ("reader",)) | parted


def _reading_columns(wish: Wish, lens: tuple[str, ...]) -> Columns:
    named = {"_".join((*lens, name)): (*lens, name) for name in _READING}
    labels = load_taxonomy(wish.taxonomy).labels
    return named | {"_".join((*lens, "score", label)): (*lens, "scores", label) for label in labels}


def _value(record: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What stands at a place in the object of a row; None where the object ends before."""
    found: Any = record
    for key in path:
        found = found.get(key) if found is not None else None
    return found


def records(partial: Path) -> Iterator[dict[str, Any]]:
    """The objects of the finished rows, in order."""
    with open(partial, "rb") as lines:
        yield from map(json.loads, lines)


def _write_csv(partial: Path, path: Path, columns: Columns) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for record in records(partial):
            writer.writerow(_cell(_value(record, place)) for place in columns.values())


def _cell(value: object) -> object:
    """A cell that a spreadsheet takes for text: what it would take for a formula gets an apostrophe in front."""
    if isinstance(value, list):
        value = ", ".join(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write_parquet(partial: Path, path: Path, columns: Columns) -> None:
    import pyarrow as arrow

    parquet = import_parquet()
    kinds = {
        "row": arrow.int64(), "abstained": arrow.bool_(), "emotions": arrow.list_(arrow.string()),
        "evidence": arrow.list_(arrow.string()), **dict.fromkeys(_FRACTIONS, arrow.float64()),
    }  # fmt: skip
    fields = [
        (name, next((kinds[key] for key in place if key in kinds), arrow.string())) for name, place in columns.items()
    ]
    schema = arrow.schema(fields)
    found = records(partial)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := [_flat(record, columns) for record in itertools.islice(found, _BATCH)]:
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _flat(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    flat = {name: _storable(_value(record, place)) for name, place in columns.items()}
    return flat | {"id": _storable(str(record["id"]))}


def _storable(value: object) -> object:
    """Strings that are UTF-8, as Parquet wants them: a lone surrogate becomes an escape."""
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
