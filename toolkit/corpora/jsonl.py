"""Examples as JSON lines: one object a line, the form in which the corpora commands hand data on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from convert.files import replacing
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of ``path`` in file order; blank lines are skipped, keys that are not known are ignored.

    A row needs ``text`` and ``labels`` (names in the native taxonomy of its ``lens``, default author); ``id``,
    ``soft``, ``weight`` and ``reasoning`` may be there.

    Raises:
        DataError: for a missing file or a damaged row, named by file and line.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parse(line, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write the examples to ``path``, whole or not at all; returns how many there were.

    Raises:
        FileError: no space, no permission, a read-only folder.
    """
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(to_row(example), ensure_ascii=False) + "\n")
            count += 1
    return count


def to_row(example: Example) -> dict[str, Any]:
    """The JSON object of one example; what is not set is left out."""
    row: dict[str, Any] = {
        "id": example.id,
        "text": example.text,
        "labels": list(example.labels),
        "lens": str(example.lens),
    }
    if example.soft:
        row["soft"] = dict(example.soft)
    if example.weight != 1.0:
        row["weight"] = example.weight
    if example.reasoning is not None:
        row["reasoning"] = example.reasoning
    return row


def _parse(line: bytes, where: str) -> Example:
    try:
        row = json.loads(line)
    except ValueError:
        raise DataError(f"{where}, is not valid JSON.", "Restore the file, or remove the line.") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}, holds no JSON object.", "Write one object with text and labels a line.")
    try:
        return _example(row)
    except (KeyError, TypeError, ValueError) as error:
        cause = f"lacks the key {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise DataError(f"{where}, {cause}.", "Restore the file, or remove the line.") from None


def _example(row: dict[str, Any]) -> Example:
    lens = Lens(row.get("lens", "author"))
    text, labels, soft, reasoning = row["text"], row["labels"], row.get("soft"), row.get("reasoning")
    if not isinstance(text, str):
        raise TypeError("text is no string")
    if not isinstance(reasoning, str | None):
        raise TypeError("reasoning is no string")
    if not isinstance(labels, list) or not labels:
        raise TypeError("labels is no list of names")
    if not isinstance(soft, dict | None):
        raise TypeError("soft is no mapping from label to share")
    known = load_taxonomy(lens.native).labels
    strange = [str(label) for label in [*labels, *(soft or {})] if label not in known]
    if strange:
        raise ValueError(f"{lens.native} has no label {strange[0]!r}")
    shares = {label: float(share) for label, share in soft.items()} if soft else None
    weight = float(row.get("weight", 1.0))
    if not all(0.0 <= number < math.inf for number in (weight, *(shares or {}).values())):
        raise ValueError("weight and shares are no numbers from 0 on")
    return Example(text, tuple(labels), lens, str(row.get("id", "")), shares, weight, reasoning)
