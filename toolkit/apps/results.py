"""The rows that come out: one record each, and the finished file as JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.files import explained, replacing
from toolkit.apps.tables import Row, import_parquet
from toolkit.contract.analysis import Analysis
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.inference.request import Wish

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_SHEET = (
    "id", "row", "status", "error", "text", "lens", "taxonomy", "mode", "emotion", "fine_emotion", "confidence",
    "abstained", "emotions", "coverage", "outside", "reasoning", "evidence", "model",
)  # fmt: skip
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


def record_of(row: Row, outcome: Analysis | str | None, wish: Wish, model: str) -> dict[str, Any]:
    """The object of one row.

    Args:
        outcome: the reading; None for a text without words; a sentence where it failed.
    """
    status = "ok" if isinstance(outcome, Analysis) else "empty" if outcome is None else "error"
    error = outcome if isinstance(outcome, str) else None
    head = {"id": row.id, "row": row.number, "status": status, "error": error}
    if isinstance(outcome, Analysis):
        return head | outcome.to_dict()
    return head | {
        "text": row.text, "lens": str(wish.lens), "taxonomy": wish.taxonomy, "mode": wish.mode, "emotion": None,
        "fine_emotion": None, "confidence": None, "abstained": None, "emotions": [], "scores": None, "coverage": None,
        "outside": None, "reasoning": None, "evidence": [], "model": model,
    }  # fmt: skip


def finish(partial: Path, output: Path, form: str, taxonomy: str) -> None:
    """Make the output of the finished rows, whole or not at all."""
    if form == "jsonl":
        with explained(output):
            partial.replace(output)
        return
    labels = load_taxonomy(taxonomy).labels
    with replacing(output) as temporary:
        if form == "csv":
            _write_csv(partial, temporary, labels)
        else:
            _write_parquet(partial, temporary, labels)


def _records(partial: Path) -> Iterator[dict[str, Any]]:
    with open(partial, "rb") as lines:
        yield from map(json.loads, lines)


def _write_csv(partial: Path, path: Path, labels: tuple[str, ...]) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_SHEET, *(f"score_{label}" for label in labels)])
        for record in _records(partial):
            scores = record["scores"] or {}
            cells = [_cell(record[name]) for name in _SHEET]
            writer.writerow([*cells, *(scores.get(label) for label in labels)])


def _cell(value: object) -> object:
    """A cell that a spreadsheet takes for text: what it would take for a formula gets an apostrophe in front."""
    if isinstance(value, list):
        value = ", ".join(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write_parquet(partial: Path, path: Path, labels: tuple[str, ...]) -> None:
    import pyarrow as arrow

    parquet = import_parquet()
    kinds = {
        "row": arrow.int64(), "confidence": arrow.float64(), "coverage": arrow.float64(), "outside": arrow.float64(),
        "abstained": arrow.bool_(), "emotions": arrow.list_(arrow.string()), "evidence": arrow.list_(arrow.string()),
    }  # fmt: skip
    fields = [(name, kinds.get(name, arrow.string())) for name in _SHEET]
    schema = arrow.schema([*fields, *((f"score_{label}", arrow.float64()) for label in labels)])
    records = _records(partial)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := [_flat(record, labels) for record in itertools.islice(records, _BATCH)]:
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _flat(record: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    scores = record["scores"] or {}
    flat = {name: _storable(record[name]) for name in _SHEET} | {
        f"score_{label}": scores.get(label) for label in labels
    }
    return flat | {"id": _storable(str(record["id"]))}


def _storable(value: object) -> object:
    """Strings that are UTF-8, as Parquet wants them: a lone surrogate becomes an escape."""
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
