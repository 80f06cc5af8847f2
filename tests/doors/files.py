"""Files as people have them, for every door that takes a file: what comes out of them, or what is said of them."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

MEGABYTE = 1 << 20


def as_stored(name: str, content: bytes) -> bytes:
    """The content as a file of that name has it."""
    return gzip.compress(content, 1) if name.endswith(".gz") else content


def parquet_of(columns: dict[str, list[Any]]) -> bytes:
    """A Parquet file."""
    file = io.BytesIO()
    parquet.write_table(arrow.table(columns), file)
    return file.getvalue()


QUOTED = 'id;comment\r\n7;"Café, “sad”\r\nand more"\r\n8;ok\r\n'
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252")
_LONG = b"y" * 10 * MEGABYTE
_LINES = [
    b'{"id": 1, "text": "plain"}',
    b"",
    b'{"id": 1, "text": "the same id"}',
    b'{"id": NaN, "text": NaN}',
    b'{"id": 2.5, "text": 42}',
    b'{"id": 3, "text": "beside ten megabytes", "more": "' + _LONG + b'"}',
    b"{" + _LONG,
    b'{"id": 4, "text": null}',
    b'{"id": 5, "text": "   "}',
    b'{"id": 6, "text": "cut o',
]
_PARQUET = parquet_of({"id": [7, None, 9], "text": ["one", None, ""]})

Rows = list[tuple[str | int | float, str, str]]
_QUOTED_ROWS: Rows = [("7", "ok", "Café, “sad”\r\nand more"), ("8", "ok", "ok")]

# A file's name and content, and the id, status and text of every row.
READ: dict[str, tuple[str, bytes, Rows]] = {
    "ragged rows": (
        "in.csv",
        b"id,text,n\n1,good,1\n2\n3,also good\n4,one, two,4\n5,trailing,5,,\n6,,6\n",
        [
            ("1", "ok", "good"), ("2", "error", ""), ("3", "ok", "also good"), ("4", "error", "one"),
            ("5", "ok", "trailing"), ("6", "empty", ""),
        ],
    ),
    **{
        f"embedded newlines in {encoding}": ("in.csv", QUOTED.encode(encoding), _QUOTED_ROWS) for encoding in ENCODINGS
    },
    "embedded newlines in gzip": ("in.csv.gz", QUOTED.encode("utf-16"), _QUOTED_ROWS),
    "a header twice and numbers for ids": (
        "in.csv",
        b"text,id,text\nfirst one,007,second one\nfirst two,3.5,second two\n",
        [("007", "ok", "first one"), ("3.5", "ok", "first two")],
    ),
    "json lines": (
        "in.jsonl",
        b"\n".join(_LINES),
        [
            (1, "ok", "plain"), (1, "ok", "the same id"), (2, "empty", ""), (2.5, "ok", "42"),
            (3, "ok", "beside ten megabytes"), (5, "error", ""), (4, "empty", ""), (5, "empty", "   "),
            (8, "error", ""),
        ],
    ),
    **{
        f"parquet with gaps, {name}": (name, _PARQUET, [(7, "ok", "one"), (1, "empty", ""), (9, "empty", "")])
        for name in ("in.parquet", "in.parquet.gz", "no_ending")
    },
}  # fmt: skip

# Files of which no row can be read, and what is said of them.
REFUSED: dict[str, tuple[str, bytes, str]] = {
    **{f"no bytes in {name}": (name, b"", "is empty.") for name in (
        "in.csv", "in.tsv", "in.jsonl", "in.txt", "in.parquet", "in.csv.gz", "in.jsonl.gz"
    )},
    "blank lines": ("in.csv", b"\n\n\n", "holds no row"),
    "numbers alone": ("in.csv", b"n,m\n1,2\n3,4\n", "No column holds text"),
    "an open quotation mark": ("in.csv", b'id,text\n1,"' + b"x" * 2000, "field larger than field limit"),
    "blank json lines": ("in.jsonl", b"\n \n", "holds no row"),
    "an array that is cut off": ("in.jsonl", b"[\n", "one JSON array"),
    "an array": ("in.jsonl", b'[{"text": "a"}, {"text": "b"}]', "one JSON array"),
    "json numbers": ("in.jsonl", b"1\n2\n", "holds no JSON object"),
    "no json": ("in.jsonl", b"not json\n", "holds no JSON object"),
    "parquet in name and mark": ("in.parquet", b"PAR1 and nothing else", "no sound Parquet file"),
    "parquet in name": ("in.parquet", b"text\na\n", "no sound Parquet file"),
    "gzip that is cut off": ("in.csv", gzip.compress(QUOTED.encode())[:-20], "damaged or cut off"),
    "gzip in its first bytes": ("in.csv", b"\x1f\x8b\x08 nonsense", "in.csv"),
}  # fmt: skip
