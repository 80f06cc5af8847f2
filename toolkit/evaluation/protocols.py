"""What is asked and what counts as right: the rows of each protocol, complete and untouched."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens, check_pair
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.errors import DataError, UsageError
from toolkit.evaluation.metrics import Bools


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a named protocol judges.

    Attributes:
        lens: whose corpus and native labels.
        taxonomy: in which gold and predictions are.
        thresholded: whether F1 is of the predictions from thresholds, as a row may have several gold labels.
        alone: whether only rows count whose one gold label has a place in ``taxonomy``.
    """

    lens: Lens
    taxonomy: str
    thresholded: bool = False
    alone: bool = False


PROTOCOLS = {
    "goemotions": Protocol(Lens.AUTHOR, "goemotions", thresholded=True),
    "ekman": Protocol(Lens.AUTHOR, "ekman", thresholded=True),
    "sentiment": Protocol(Lens.AUTHOR, "sentiment", thresholded=True),
    "shared10": Protocol(Lens.AUTHOR, "shared10", alone=True),
    "empathetic": Protocol(Lens.READER, "empathetic"),
    "empathetic10": Protocol(Lens.READER, "shared10", alone=True),
}
GOLD_COLUMNS = {Lens.AUTHOR: ("emotion",), Lens.READER: ("reader_emotion", "emotion")}
FILE_TYPES = (".csv", ".tsv", ".jsonl", ".ndjson")
CELL_LIMIT = 1 << 30
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows to judge.

    Attributes:
        protocol: its name, or the path of a file.
        split: of the corpus, or None for a file.
        taxonomy: in which gold and predictions are.
        texts: n texts as they stand in the corpus.
        gold: shape (n, labels of ``taxonomy``); at least one True a row.
        native_gold: shape (n, native labels of ``lens``), or None for a file.
        thresholded: whether F1 is of the predictions from thresholds, not of the most probable label.
    """

    protocol: str
    split: str | None
    lens: Lens
    taxonomy: str
    texts: tuple[str, ...]
    gold: Bools
    native_gold: Bools | None
    thresholded: bool


def load_rows(
    protocol: str,
    split: str = "dev",
    *,
    source: Path | None = None,
    limit: int | None = None,
    lens: Lens | None = None,
    taxonomy: str | None = None,
) -> Rows:
    """The first ``limit`` rows of a protocol, all by default.

    Args:
        protocol: a name of ``PROTOCOLS``, or a CSV, TSV or JSONL file as :func:`read_file` reads it.
        split: ``train``, ``dev`` or ``test`` of the protocol's corpus.
        source: the folder with the corpora; see :func:`~toolkit.corpora.goemotions.read_goemotions`.
        limit: the number of rows.
        lens: for a file, the lens to judge; the author's by default.
        taxonomy: for a file, the taxonomy of its labels; the lens's own by default.

    Raises:
        UsageError: for an unknown protocol, or a taxonomy that does not go with it.
        DataError: for a missing split, or a file that cannot be read.
    """
    if protocol in PROTOCOLS:
        fixed = PROTOCOLS[protocol]
        if lens not in (None, fixed.lens) or taxonomy not in (None, fixed.taxonomy):
            raise UsageError(
                f"The protocol {protocol} judges the lens {fixed.lens} in its own taxonomy, {fixed.taxonomy}.",
                "Leave --lens and --taxonomy out.",
            )
        return _protocol_rows(protocol, split, itertools.islice(_examples(fixed, split, source), limit))
    if Path(protocol).suffix.lower() not in FILE_TYPES:
        raise UsageError(
            f"There is no protocol {protocol!r}.", f"Use {', '.join(PROTOCOLS)}, or a file ending in .csv or .jsonl."
        )
    lens = lens or Lens.AUTHOR
    taxonomy = taxonomy or lens.native
    check_pair(lens, taxonomy)
    found = _some(list(itertools.islice(read_file(Path(protocol), taxonomy, lens), limit)), protocol)
    gold = label_matrix((labels for _, labels in found), len(found), taxonomy)
    return Rows(protocol, None, lens, taxonomy, tuple(text for text, _ in found), gold, None, False)


def _examples(protocol: Protocol, split: str, source: Path | None) -> Iterator[Example]:
    """Every example of the split, or those with exactly one label, which has a place in the protocol's taxonomy."""
    native = load_taxonomy(protocol.lens.native)
    mapping = native.mapping(protocol.taxonomy)
    rows = read_goemotions(split, source) if protocol.lens is Lens.AUTHOR else read_empathetic(split, source)
    for example in rows:
        fits = len(example.labels) == 1 and mapping[native.index(example.labels[0])] is not None
        if fits or not protocol.alone:
            yield example


def _protocol_rows(name: str, split: str, found: Iterable[Example]) -> Rows:
    examples = _some(list(found), f"The {split} split")
    protocol = PROTOCOLS[name]
    native = protocol.lens.native
    gold = label_matrix((example.labels for example in examples), len(examples), native)
    texts = tuple(example.text for example in examples)
    mapped = mapped_gold(gold, native, protocol.taxonomy)
    return Rows(name, split, protocol.lens, protocol.taxonomy, texts, mapped, gold, protocol.thresholded)


def _some(found: list[T], named: str) -> list[T]:
    if not found:
        raise DataError(f"{named} has no row to judge.", "Check the split or the file.")
    return found


def label_matrix(sets: Iterable[Sequence[str]], n: int, taxonomy: str) -> Bools:
    """Label sets of n rows as a matrix of shape (n, labels)."""
    known = load_taxonomy(taxonomy)
    matrix = np.zeros((n, len(known.labels)), dtype=bool)
    for row, labels in enumerate(sets):
        matrix[row, [known.index(label) for label in labels]] = True
    return matrix


def mapped_gold(gold: Bools, native: str, target: str) -> Bools:
    """Gold label sets (n, native labels) in another taxonomy, shape (n, target labels), less what has no place."""
    mapped = np.zeros((len(gold), len(load_taxonomy(target).labels)), dtype=bool)
    for column, goal in enumerate(load_taxonomy(native).mapping(target)):
        if goal is not None:
            mapped[:, goal] |= gold[:, column]
    return mapped


def read_file(path: Path, taxonomy: str, lens: Lens = Lens.AUTHOR) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Texts and their label from a CSV, TSV or JSONL file with the columns text and emotion.

    Through the reader's lens the label is that of the column reader_emotion in a file that has one (in JSONL, whose
    first row has one), as the samples that ship do. It must be a label of ``taxonomy`` either way.

    Raises:
        DataError: naming file and row.
    """
    labels = load_taxonomy(taxonomy).labels
    source, column = _decode(path), ""
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    for where, record in _read_jsonl(path, source) if lines else _read_csv(path, source, lens):
        column = column or _gold_column(record, lens)
        text, emotion = record.get("text"), record.get(column)
        if not isinstance(text, str) or not isinstance(emotion, str):
            raise DataError(f"{where} has no string in text and {column}.", "Complete the row.")
        if emotion not in labels:
            raise DataError(
                f"{where} has the emotion {emotion!r}, which {taxonomy} lacks.",
                f"Correct it, or choose another --taxonomy. Its labels: {', '.join(labels)}.",
            )
        yield text, (emotion,)


def _gold_column(names: Container[str], lens: Lens) -> str:
    """The column with the gold labels: the first of the lens's own that is among ``names``."""
    return next((column for column in GOLD_COLUMNS[lens] if column in names), "emotion")


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text.", "Save it as UTF-8.") from None


def _read_csv(path: Path, source: str, lens: Lens) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(CELL_LIMIT)
    rows = csv.reader(io.StringIO(source, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header = next(rows, [])
    column = _gold_column(header, lens)
    if header.count("text") != 1 or header.count(column) != 1:
        raise DataError(
            f"{path} needs the columns text and {column}, once each; it has: {', '.join(header)[:200] or 'nothing'}.",
            "Name them in the first line; separate them by commas, or by tabs in a .tsv.",
        )
    for row in rows:
        where = f"{path}, line {rows.line_num},"
        if row and len(row) != len(header):
            raise DataError(f"{where} has {len(row)} cells where the header has {len(header)}.", "Quote or mend it.")
        if row:
            yield where, dict(zip(header, row, strict=True))


def _read_jsonl(path: Path, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(source.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{where} is no JSON.", "Write one JSON object a line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{where} is no JSON object.", "Write one JSON object a line.")
        yield where, record
