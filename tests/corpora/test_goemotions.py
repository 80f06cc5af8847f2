"""The reader takes the official files as they are and names what is missing or damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.corpora.goemotions import find_split, read_goemotions
from toolkit.errors import DataError


def test_packed_and_plain_splits_are_read(source: Path) -> None:
    rows = list(read_goemotions("train", source))
    assert rows[0].text == "Thank you so much for this song."
    assert rows[0].labels == ("gratitude",)
    assert [e.id for e in read_goemotions("dev", source)] == ["d1", "d2", "d3"]


def test_labels_come_in_taxonomy_order(tmp_path: Path) -> None:
    folder = tmp_path / "goemotions"
    folder.mkdir()
    (folder / "dev.tsv").write_text("x\t27,0,17\tid\n", encoding="utf-8")
    assert next(read_goemotions("dev", tmp_path)).labels == ("admiration", "joy", "neutral")


@pytest.mark.parametrize("row", ["text only", "x\t99\tid", "x\t-1\tid", "x\tjoy\tid", "x\t\tid", "a\tb\tc\td", ""])
def test_a_damaged_row_is_named(tmp_path: Path, row: str) -> None:
    folder = tmp_path / "goemotions"
    folder.mkdir()
    (folder / "dev.tsv").write_text(f"fine\t1\tid\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.tsv, line 2"):
        list(read_goemotions("dev", tmp_path))


def test_a_missing_split_and_a_missing_folder_are_named(source: Path, tmp_path: Path) -> None:
    assert find_split(source, "test") is None
    with pytest.raises(DataError, match="no test split"):
        list(read_goemotions("test", source))
    with pytest.raises(DataError, match="does not exist"):
        list(read_goemotions("train", tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no split 'valid'"):
        list(read_goemotions("valid", source))


def test_without_the_package_the_hub_is_an_expected_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOTION_LRM_CORPORA", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match="needs the package huggingface_hub"):
        list(read_goemotions("train"))
