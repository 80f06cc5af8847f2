"""Every form in which people have texts: what is found, what is said, and one row for every row."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from convert.errors import FileError
from toolkit.apps import tables
from toolkit.apps.decoding import find_encoding
from toolkit.apps.tables import Table, open_table
from toolkit.errors import DataError, UsageError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(table: Table) -> list[str]:
    return [row.text for row in table.rows()]


def ids(table: Table) -> list[object]:
    return [row.id for row in table.rows()]


CSV = "id,comment,score\na,I am glad,1\nb,Café “sad”,2\n"
TEXTS = ["I am glad", "Café “sad”"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_are_found(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = CSV.encode(encoding)
    name, content = ("in.csv.gz", gzip.compress(content)) if packed else ("in.csv", content)
    table = open_table(written(tmp_path, name, content))
    assert (table.columns, texts(table), ids(table)) == (("id", "comment", "score"), TEXTS, ["a", "b"])


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    assert texts(open_table(written(tmp_path, "in.csv", gzip.compress(CSV.encode())))) == TEXTS


def test_cp1252_is_the_fallback_and_said(tmp_path: Path) -> None:
    table = open_table(written(tmp_path, "in.csv", CSV.encode("cp1252")))
    assert texts(table) == TEXTS
    assert table.notes[0] == "Encoding: cp1252 (guessed; --encoding chooses another)."
    other = open_table(written(tmp_path, "in.csv", CSV.encode("cp1250")), encoding="cp1250")
    assert texts(other) == TEXTS
    assert not any("Encoding" in note for note in other.notes)


def test_a_stray_byte_costs_a_character_not_the_run(tmp_path: Path) -> None:
    content = ("größer 😀\n" * 3).encode() + b"caf\xe9 \x81\n"
    assert texts(open_table(written(tmp_path, "in.txt", content)))[2:] == ["größer 😀", "café \ufffd"]
    assert find_encoding("é".encode()[:1]) == "utf-8"  # cut inside a character
    late = b"x" * 300_000 + b"\ncaf\xe9\n"
    assert texts(open_table(written(tmp_path, "late.txt", late)))[1] == "café"


def test_an_unknown_encoding_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no encoding 'klingon'"):
        open_table(written(tmp_path, "in.csv", CSV), encoding="klingon")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
def test_delimiters_are_found_whatever_the_name(tmp_path: Path, delimiter: str, name: str) -> None:
    content = f'id{delimiter}text\n1{delimiter}"a, b; c | d\te"\n2{delimiter}x\n'
    table = open_table(written(tmp_path, name, content))
    assert table.delimiter == delimiter
    assert texts(table) == ["a, b; c | d\te", "x"]


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", "text#n\na#1\n")
    assert texts(open_table(path, delimiter="#")) == ["a"]
    assert open_table(path, delimiter="\\t").delimiter == "\t"
    with pytest.raises(UsageError, match="one character"):
        open_table(path, delimiter="##")


def test_newlines_and_quotes_inside_cells(tmp_path: Path) -> None:
    content = 'id,text\r\n1,"one\r\ntwo ""three"""\r\n2,\u2028x\x85\r\n3,nul \x00\r\n'
    assert texts(open_table(written(tmp_path, "in.csv", content))) == [
        'one\r\ntwo "three"', "\u2028x\x85", "nul \x00",
    ]  # fmt: skip


def test_tsv_without_quoting(tmp_path: Path) -> None:
    content = 'text\tid\n"Yes, he said\t1\nno "quotes" here\t2\n"whole"\t3\n'
    assert texts(open_table(written(tmp_path, "in.tsv", content))) == [
        '"Yes, he said', 'no "quotes" here', '"whole"',
    ]  # fmt: skip


def test_ragged_rows_are_errors_of_their_own(tmp_path: Path) -> None:
    content = "id,text,n\n1,good,1\n2\n3,also good\n4,one, two,4\n5,trailing,5,,\n\n6,last,6\n"
    rows = list(open_table(written(tmp_path, "in.csv", content)).rows())
    assert [(row.number, row.id, row.text, row.error is None) for row in rows] == [
        (0, "1", "good", True),
        (1, "2", "", False),
        (2, "3", "also good", True),
        (3, "4", "one", False),
        (4, "5", "trailing", True),
        (5, "6", "last", True),
    ]
    assert rows[3].error == "The row has 4 cells, the table 3 columns."


def test_a_single_column_keeps_its_blank_lines(tmp_path: Path) -> None:
    assert texts(open_table(written(tmp_path, "in.csv", "text\na\n\nb\n"))) == ["a", "", "b"]


def test_a_quotation_mark_that_is_never_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_CELL", 1000)
    with pytest.raises(DataError, match="field larger than field limit"):
        texts(open_table(written(tmp_path, "in.csv", 'id,text\n1,"open\n' + "2,x\n" * 1000)))


def test_duplicate_headers(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", "text,n,text\nfirst,1,second\n")
    assert texts(open_table(path)) == ["first"]
    assert texts(open_table(path, text_column="3")) == ["second"]
    with pytest.raises(UsageError, match="2 columns are named 'text'"):
        open_table(path, text_column="text")


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", CSV)
    with pytest.raises(UsageError, match="no column 'coment'") as failed:
        open_table(path, text_column="coment")
    assert "'comment'" in failed.value.hint
    with pytest.raises(UsageError, match="no column 'key'"):
        open_table(path, id_column="key")


def test_without_a_header_no_row_is_lost(tmp_path: Path) -> None:
    content = "My favourite food is anything I didn't have to cook myself.\t27\teebbqej\nNow I am sad\t27\ted00q6i\n"
    table = open_table(written(tmp_path, "train.tsv", content))
    assert (table.columns, len(texts(table)), table.text) == (("1", "2", "3"), 2, 0)
    assert "The first row holds data" in table.notes[0]
    assert len(texts(open_table(table.path, header=True))) == 1
    assert len(texts(open_table(written(tmp_path, "in.csv", CSV), header=False))) == 3


def test_the_text_column_is_guessed_by_name_then_by_words(tmp_path: Path) -> None:
    named = open_table(written(tmp_path, "a.csv", "words of many,Message\na long cell with many words,short\n"))
    assert texts(named) == ["short"]
    assert named.notes == ("Text column: Message (guessed; --text-column chooses another).",)
    by_words = open_table(written(tmp_path, "b.csv", "when,what,n\n2020-01-01 10:00,I went home and cried,7\n"))
    assert texts(by_words) == ["I went home and cried"]
    with pytest.raises(DataError, match="No column holds text"):
        open_table(written(tmp_path, "c.csv", "a,b\n1,2\n3,4\n"))


def test_ids_come_from_the_column_asked_for_else_id_else_the_number(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", "ID,key,text\n7,x,a\n,y,b\n")
    assert ids(open_table(path)) == ["7", 1]
    assert ids(open_table(path, id_column="key")) == ["x", "y"]
    assert ids(open_table(written(tmp_path, "plain.txt", "a\nb\n"))) == [0, 1]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"id": 1, "text": "plain"}',
        "",
        '{"id": 1, "text": "duplicate id"}',
        '{"id": NaN, "text": NaN}',
        '{"id": 1.5, "text": 42}',
        '{"text": null, "id": [1]}',
        '{"id": true, "text": {"a": 1}}',
        '{"id": 8}',
        "[1, 2]",
        '"a bare string"',
        '{"id": 9, "text": "\\ud800 \\u0000"}',
        "not json",
        "[" * 100_000,
        '{"id": 10, "text": "cut o',
    ]
    table = open_table(written(tmp_path, "in.jsonl", "\ufeff" + "\n".join(lines)))
    rows = list(table.rows())
    assert [(row.id, row.text) for row in rows if row.error is None] == [
        (1, "plain"), (1, "duplicate id"), (2, ""), (1.5, "42"), ("[1]", ""), (8, "a bare string"),
        (9, "\ud800 \x00"),
    ]  # fmt: skip
    assert [(row.number, row.error) for row in rows if row.error] == [
        (5, "The text is no string but dict."),
        (6, "The object lacks 'text'."),
        (7, "The line holds neither an object nor a string."),
        (10, "The line is no JSON: Expecting value."),
        (11, "The line is no JSON: nested too deeply."),
        (12, "The line is no JSON: Unterminated string starting at."),
    ]


@pytest.mark.parametrize("content", ['[{"text": "a"}]', '[\n{"text": "a"}\n]\n', "[1, 2]\n", '\ufeff[{\n"text": "a"}]'])
def test_an_array_on_top_says_what_to_do(tmp_path: Path, content: str) -> None:
    for name in ("in.json", "in.jsonl"):
        with pytest.raises(DataError, match="one JSON array") as failed:
            open_table(written(tmp_path, name, content))
        assert "jq -c" in failed.value.hint


def test_a_ten_megabyte_line(tmp_path: Path) -> None:
    large = "x" * 10_000_000
    assert texts(open_table(written(tmp_path, "in.jsonl", json.dumps({"text": large}) + "\n"))) == [large]
    assert texts(open_table(written(tmp_path, "in.csv", f"id,text\n1,{large}\n"))) == [large]


def test_plain_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    content = "\ufeffone\r\ntwo\u2028still two\nthree\rstill three\n\nfour, five\x85"
    expected = ["one", "two\u2028still two", "three\rstill three", "", "four, five\x85"]
    assert texts(open_table(written(tmp_path, "in.txt", content))) == expected
    with pytest.raises(UsageError, match="no columns"):
        open_table(tmp_path / "in.txt", text_column="text")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow.table({"n": [1, 2, 3], "body": ["a", None, "c"], "id": [7, 8, 9]}), path)
    assert [(row.id, row.text, row.error) for row in open_table(path).rows()] == [
        (7, "a", None), (8, "", None), (9, "c", None),
    ]  # fmt: skip
    assert [row.text for row in open_table(path, text_column="n").rows()] == ["1", "2", "3"]
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="no sound Parquet"):
        open_table(tmp_path / "cut.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match="pyarrow") as failed:
        open_table(written(tmp_path, "in.parquet", b"PAR1"))
    assert "emotion-lrm[data]" in failed.value.hint


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b'{"text": "a"}\n', "jsonl"),
        (b"id;text\n1;a\n", "csv"),
        (b"I am sad, you know\nReally, I am\n", "txt"),
        (gzip.compress(b"plain words\n", mtime=0), "txt"),
    ],
)
def test_a_name_that_says_nothing_leaves_it_to_the_content(tmp_path: Path, content: bytes, form: str) -> None:
    path = written(tmp_path, "standard input", content)
    assert open_table(path).form == form
    assert open_table(path, form="txt").form == "txt"


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.txt", "in.parquet"])
def test_nothing_in_it(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match="empty"):
        open_table(written(tmp_path, name, content))


@pytest.mark.parametrize(("name", "content"), [("in.csv", "\n\n"), ("in.jsonl", "\n \n"), ("h.csv", "text,id\n")])
def test_no_row_in_it(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content)
    if name == "h.csv":
        assert texts(open_table(path)) == []
        return
    with pytest.raises(DataError, match=r"holds no|No column"):
        open_table(path)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="folder, not a file"):
        open_table(tmp_path)
    with pytest.raises(FileError, match="No such file"):
        open_table(tmp_path / "none.csv")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = written(tmp_path, "in.csv", CSV)
    monkeypatch.setattr("toolkit.apps.decoding.open", refuse, raising=False)  # root may read anything
    with pytest.raises(FileError, match="No permission"):
        open_table(path)
