"""Tables survive odd bytes: a spoiled row is one row, a spoiled file is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from toolkit.corpora.goemotions import read_goemotions
from toolkit.corpora.tables import Damage, read_lines, read_table
from toolkit.errors import DataError


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes("\ufeffid\ttext\r\n1\ta\u2028b\rc\r\n".encode())
    assert [row for _, row in read_table(path, ("id", "text"))] == [{"id": "1", "text": "a\u2028b\rc"}]


def test_bytes_that_are_no_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    path, damage = tmp_path / "x.tsv", Damage()
    path.write_bytes(b"id\ttext\n1\t\xff\n2\tfine\n")
    assert [row["id"] for _, row in read_table(path, ("id",), damage)] == ["2"]
    assert damage.shown == [f"{path}, line 2, is not valid UTF-8."]
    with pytest.raises(DataError, match="line 2, is not valid UTF-8"):
        list(read_table(path, ("id",)))


def test_only_the_first_damaged_rows_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    (tmp_path / "goemotions").mkdir()
    (tmp_path / "goemotions" / "dev.tsv").write_bytes(b"bad\n" * 9 + b"\xff\t1\tid\nfine\t1\tid\n")
    damage = Damage()
    assert [e.text for e in read_goemotions("dev", tmp_path, damage)] == ["fine"]
    assert (damage.count, len(damage.shown)) == (10, 5)


def test_a_long_line_crosses_the_block(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(f"{'a' * 200_000}\t1\nshort\t2", encoding="utf-8")
    assert [len(fields[0]) for _, fields in read_lines(path)] == [200_000, 5]


def test_a_cut_gzip_file_and_an_empty_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv.gz"
    path.write_bytes(gzip.compress(b"id\ttext\n" + bytes(range(32, 127)) * 50)[:60])
    with pytest.raises(DataError, match="cut off or no gzip"):
        list(read_table(path, ("id",)))
    empty = tmp_path / "y.tsv"
    empty.touch()
    with pytest.raises(DataError, match="is empty"):
        list(read_table(empty, ("id",)))
    with pytest.raises(DataError, match="Cannot read"):
        list(read_table(tmp_path / "none.tsv", ("id",)))


def test_a_cell_beyond_the_csv_limit_is_an_expected_failure(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"id,text\n1,{'a' * 200_000}\n", encoding="utf-8")
    with pytest.raises(DataError, match="no readable CSV"):
        list(read_table(path, ("id",)))
