"""Tables of texts in the forms that people have them in, read row by row: CSV, TSV, JSONL, plain lines, Parquet."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.apps.columns import find_column, guess_text_column, has_header, named_column
from toolkit.apps.decoding import check_encoding, find_encoding, open_bytes, open_text, read_head
from toolkit.errors import DataError, UsageError

FORMS = ("csv", "jsonl", "txt", "parquet")
SAMPLE = 100
LARGEST_CELL = 1 << 26  # an open quotation mark would otherwise swallow the rest of the file
_BY_NAME = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".txt": "txt", ".log": "txt", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it came in: its number from 0, its id, its text, and what is wrong with it, or None."""

    number: int
    id: str | int | float
    text: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """How a file is to be read; ``text`` and ``id`` are column positions in CSV and Parquet, and in JSONL's first keys.

    Attributes:
        quoted: whether cells of a CSV may stand in quotation marks.
        header: whether the first row of a CSV names the columns.
        notes: what was guessed, one sentence each.
    """

    path: Path
    form: str
    encoding: str = "utf-8"
    delimiter: str = ","
    quoted: bool = True
    header: bool = False
    columns: tuple[str, ...] = ()
    text: int = 0
    id: int | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> Generator[Row, None, None]:
        """Every row, in order, lazily; the file is open until the last, or until it is closed.

        Raises:
            DataError: where the file is damaged so that no row after this can be trusted.
        """
        cells = {"csv": _csv_cells, "jsonl": _json_cells, "txt": _line_cells, "parquet": _parquet_cells}[self.form]
        for number, (text, key, error) in enumerate(cells(self)):
            yield row_of(number, text, key, error)

    def identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it continues."""
        return {
            name: getattr(self, name) for name in ("form", "encoding", "delimiter", "quoted", "header", "text", "id")
        }


Cells = tuple[object, object, str | None]


def open_table(
    path: Path,
    *,
    form: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
) -> Table:
    """Find out how to read a file; what is None is found in its first bytes.

    Raises:
        FileError: missing, a folder, no permission.
        DataError: no text in it, or damaged.
        UsageError: for a column or an encoding that is not there.
    """
    head = read_head(path)
    if not head:
        raise DataError(f"{path} is empty.", "Give a file with at least one row.")
    table = _with_form(path, head, form, text_column)
    if table.form == "parquet":
        return _with_columns(replace(table, columns=_parquet_columns(path)), text_column, id_column)
    table = replace(table, encoding=check_encoding(encoding) if encoding else find_encoding(head))
    if not encoding and table.encoding not in ("utf-8", "utf-8-sig"):
        table = _guessed(table, "Encoding", table.encoding, "--encoding")
    if table.form == "txt":
        if text_column or id_column:
            raise UsageError(
                "Plain lines have no columns.", "Leave --text-column and --id-column out, or give --format."
            )
        return table
    if table.form == "csv":
        table = _with_delimiter(table, delimiter)
        table = _with_header(table, header, text_column)
    else:
        table = replace(table, columns=_json_columns(table))
        if not table.columns and not text_column:
            return table  # every line is a string
    return _with_columns(table, text_column, id_column)


def _guessed(table: Table, what: str, found: str, option: str) -> Table:
    """The table with a note that says so."""
    return replace(table, notes=(*table.notes, f"{what}: {found} (guessed; {option} chooses another)."))


def _suffix(path: Path) -> str:
    """The end of the name, without that of gzip."""
    return next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")


def _with_form(path: Path, head: bytes, form: str | None, text_column: str | None) -> Table:
    known = form or ("parquet" if head.startswith(b"PAR1") else _BY_NAME.get(_suffix(path)))
    if known:
        return Table(path, known)
    found = _form_by_content(head, text_column)
    return _guessed(Table(path, found), "Form", found, "--format")


def _form_by_content(head: bytes, text_column: str | None) -> str:
    text = head.decode(find_encoding(head), "replace").lstrip("\ufeff \t\r\n")
    if text.startswith(("{", "[{")):
        return "jsonl"
    first = text.partition("\n")[0]
    cells = next((first.strip().split(mark) for mark in "\t;,|" if mark in first), [])
    return "csv" if text_column or named_column(cells, ("text", "comment", "id")) is not None else "txt"


def _with_delimiter(table: Table, delimiter: str | None) -> Table:
    """The delimiter given, else the one that cuts most rows into as many cells as the first, and into the most."""
    if delimiter:
        found = delimiter.replace("\\t", "\t")
        if len(found) != 1:
            raise UsageError("A delimiter is one character.", "For example --delimiter ';' or '\\t'.")
        return _with_quotes(replace(table, delimiter=found))

    def evenness(mark: str) -> tuple[float, int]:
        widths = [len(row) for row in _sample(replace(table, delimiter=mark))]
        width = widths[0] if widths else 1
        return (widths.count(width) / len(widths), width) if width > 1 else (0.0, 1)

    found = max("\t,;|", key=evenness)
    if found != ("\t" if _suffix(table.path) in (".tsv", ".tab") else ","):
        table = _guessed(table, "Delimiter", repr(found), "--delimiter")
    return _with_quotes(replace(table, delimiter=found))


def _with_quotes(table: Table) -> Table:
    """TSV is often written without any quoting; then a cell that starts with a quotation mark need not end with one."""
    if table.delimiter != "\t":
        return table
    bare = _sample(replace(table, quoted=False))
    loose = any(cell.startswith('"') and (len(cell) < 2 or not cell.endswith('"')) for row in bare for cell in row)
    return replace(table, quoted=not (loose and len({len(row) for row in bare}) == 1))


def _with_header(table: Table, header: bool | None, text_column: str | None) -> Table:
    sample = _sample(table)
    first = _first(sample)
    if header is None:
        second = sample[1] if len(sample) > 1 else None
        header = text_column in first or has_header(first, second)
        if not header:
            note = "The first row holds data, not names (guessed; --header says otherwise)."
            table = replace(table, notes=(*table.notes, note))
    names = tuple(first) if header else tuple(str(number) for number in range(1, len(first) + 1))
    return replace(table, header=header, columns=names)


def _with_columns(table: Table, text_column: str | None, id_column: str | None) -> Table:
    columns = table.columns
    if text_column:
        text = find_column(text_column, columns, "--text-column")
    else:
        text = guess_text_column(columns, _sample(table)[1 if table.header else 0 :])
        table = _guessed(table, "Text column", columns[text], "--text-column")
    key = find_column(id_column, columns, "--id-column") if id_column else named_column(columns, ("id",))
    return replace(table, text=text, id=key)


def _first(sample: Sequence[Sequence[Any]]) -> Sequence[Any]:
    if not sample:
        raise DataError("The file holds no row.", "Give a file with at least one row.")
    return sample[0]


def _sample(table: Table) -> list[list[Any]]:
    """The first rows as lists of cells."""
    if table.form == "csv":
        return list(itertools.islice(_csv_rows(table), SAMPLE))
    if table.form == "parquet":
        return list(itertools.islice(_parquet_rows(table.path, table.columns), SAMPLE))
    found = [value for value, _ in itertools.islice(_json_values(table), SAMPLE) if isinstance(value, dict)]
    return [[value.get(name) for name in table.columns] for value in found]


# CSV and TSV


def _csv_rows(table: Table) -> Iterator[list[str]]:
    csv.field_size_limit(LARGEST_CELL)
    with open_text(table.path, table.encoding, newline="") as file:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if table.quoted else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=table.delimiter, quoting=quoting)
        try:
            # A blank line is an empty cell of a single column, and nothing in a table of several.
            yield from (row or [""] for row in reader if row or len(table.columns) == 1)
        except csv.Error as error:
            raise DataError(
                f"{table.path}, line {reader.line_num}: {error}.", "Look for a quotation mark that is never closed."
            ) from None


def _csv_cells(table: Table) -> Iterator[Cells]:
    width = len(table.columns)
    for row in itertools.islice(_csv_rows(table), int(table.header), None):
        while len(row) > width and not row[-1].strip():
            row.pop()
        key = row[table.id] if table.id is not None and table.id < len(row) else None
        text = row[table.text] if table.text < len(row) else ""
        wrong = len(row) > width or table.text >= len(row)
        yield text, key, f"The row has {len(row)} cells, the table {width} columns." if wrong else None


# JSON lines and plain lines


def _json_values(table: Table) -> Iterator[tuple[object, str | None]]:
    with open_text(table.path, table.encoding, newline="\n") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                yield json.loads(line), None
            except (ValueError, RecursionError) as error:
                if not number and line.lstrip("\ufeff \t").startswith("["):
                    raise _array(table) from None
                yield None, f"The line is no JSON: {getattr(error, 'msg', 'nested too deeply')}."


def _array(table: Table) -> DataError:
    return DataError(f"{table.path} holds one JSON array.", "Write one object a line: jq -c '.[]' FILE > FILE.jsonl")


def _json_columns(table: Table) -> tuple[str, ...]:
    sample = list(itertools.islice(_json_values(table), SAMPLE))
    if not sample:
        raise DataError(f"{table.path} holds no row.", "Give a file with at least one row.")
    if isinstance(sample[0][0], list):
        raise _array(table)
    names = dict.fromkeys(name for value, _ in sample if isinstance(value, dict) for name in value)
    if not names and not any(isinstance(value, str) for value, _ in sample):
        raise DataError(f"{table.path} holds no JSON object.", 'Write one {"text": "..."} a line.')
    return tuple(names)


def _json_cells(table: Table) -> Iterator[Cells]:
    names = table.columns
    for value, error in _json_values(table):
        if isinstance(value, str):
            yield value, None, None
        elif not isinstance(value, dict):
            yield "", None, error or "The line holds neither an object nor a string."
        else:
            key = value.get(names[table.id]) if table.id is not None else None
            lacking = names[table.text] not in value if names else True
            told = f"The object lacks {names[table.text]!r}." if lacking and names else None
            yield value.get(names[table.text], "") if names else "", key, told


def _line_cells(table: Table) -> Iterator[Cells]:
    with open_text(table.path, table.encoding, newline="\n") as file:
        for line in file:
            yield line[:-2] if line.endswith("\r\n") else line.removesuffix("\n"), None, None


# Parquet


def import_parquet() -> Any:
    """``pyarrow.parquet``, which only Parquet needs.

    Raises:
        UsageError: where it is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError("Parquet needs the package pyarrow.", 'pip install "emotion-lrm[data]"') from None
    return parquet


def _parquet_columns(path: Path) -> tuple[str, ...]:
    parquet = import_parquet()
    try:
        with open_bytes(path) as file, parquet.ParquetFile(file) as opened:
            return tuple(opened.schema_arrow.names)
    except ValueError as error:  # ArrowInvalid
        raise DataError(f"{path} is no sound Parquet file: {error}.", "Get the file again.") from None


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    parquet = import_parquet()
    with open_bytes(path) as file, parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
            values = batch.to_pydict()
            yield from (list(row) for row in zip(*(values[name] for name in columns), strict=True))


def _parquet_cells(table: Table) -> Iterator[Cells]:
    names = [table.columns[table.text], *([] if table.id is None else [table.columns[table.id]])]
    for row in _parquet_rows(table.path, names):
        yield row[0], row[1] if len(row) > 1 else None, None


def row_of(number: int, text: object, key: object, error: str | None = None) -> Row:
    """The row with a text that is a string and an id that is a string or a finite number, whatever the cells hold."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = "" if isinstance(text, float) and math.isnan(text) else str(text)
    elif not isinstance(text, str | None):
        text, error = "", error or f"The text is no string but {type(text).__name__}."
    return Row(number, _plain_id(number, key), text or "", error)


def _plain_id(number: int, key: object) -> str | int | float:
    if key is None or key == "" or (isinstance(key, float) and not math.isfinite(key)):
        return number
    return key if isinstance(key, (str, int, float)) else json.dumps(key, ensure_ascii=False, default=str)
