"""Which rows a protocol judges, and that none is cleaned, dropped or changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from toolkit.assets import asset
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError, UsageError
from toolkit.evaluation.protocols import load_rows, mapped_gold

from .conftest import ROWS


def gold_names(protocol: str, corpora: Path) -> list[set[str]]:
    rows = load_rows(protocol, "dev", source=corpora)
    labels = np.array(load_taxonomy(rows.taxonomy).labels)
    return [set(labels[row]) for row in rows.gold]


def test_every_row_counts_repeats_and_empty_ones_too(corpora: Path) -> None:
    rows = load_rows("goemotions", "dev", source=corpora)
    assert rows.texts == tuple(text for text, _, _ in ROWS)
    assert gold_names("goemotions", corpora) == [set(gold.split(",")) for _, gold, _ in ROWS]
    assert rows.thresholded


def test_gold_sets_are_mapped_to_coarser_labels(corpora: Path) -> None:
    assert gold_names("ekman", corpora) == [
        {"joy"}, {"joy"}, {"anger"}, {"neutral"}, {"sadness"}, {"surprise"}, {"sadness"}, {"neutral"}, {"joy"},
        {"disgust"},
    ]  # fmt: skip
    assert gold_names("sentiment", corpora)[:6] == [
        {"positive"}, {"positive"}, {"negative"}, {"neutral"}, {"negative"}, {"ambiguous"},
    ]  # fmt: skip


def test_shared10_takes_rows_with_one_label_that_is_among_the_ten(corpora: Path) -> None:
    rows = load_rows("shared10", "dev", source=corpora)
    assert len(rows.texts) == 7  # not the two with two labels, not annoyance
    assert gold_names("shared10", corpora) == [
        {"joy"}, {"neutral"}, {"sadness"}, {"sadness"}, {"neutral"}, {"pride"}, {"disgust"},
    ]  # fmt: skip
    assert not rows.thresholded


def test_the_reader_is_judged_on_situations(tmp_path: Path) -> None:
    folder = tmp_path / "empathetic"
    folder.mkdir()
    rows = "s1\tsad\tMy dog died\ns2\tjealous\tShe has two\ns3\tterrified\tThe stairs creaked\n"
    (folder / "situations_valid.tsv").write_text("conv_id\temotion\tsituation\n" + rows, encoding="utf-8")
    whole = load_rows("empathetic", "dev", source=tmp_path)
    assert (whole.lens, whole.taxonomy, len(whole.texts), whole.thresholded) == (Lens.READER, "empathetic", 3, False)
    ten = load_rows("empathetic10", "dev", source=tmp_path)
    assert ten.texts == ("My dog died", "The stairs creaked")  # jealous is none of the ten
    assert gold_names("empathetic10", tmp_path) == [{"sadness"}, {"fear"}]
    with pytest.raises(UsageError, match="lens reader"):
        load_rows("empathetic", "dev", source=tmp_path, lens=Lens.AUTHOR)


def test_a_limit_takes_the_first_rows_of_the_protocol(corpora: Path) -> None:
    assert load_rows("goemotions", "test", source=corpora, limit=3).texts == tuple(text for text, _, _ in ROWS[:3])
    assert load_rows("shared10", "dev", source=corpora, limit=3).texts == ("I am so happy", "", "I am so happy")


def test_two_labels_may_fall_together(corpora: Path) -> None:
    rows = load_rows("ekman", "dev", source=corpora)
    assert rows.native_gold is not None
    assert rows.native_gold[1].sum() == 2
    assert rows.gold[1].sum() == 1
    np.testing.assert_array_equal(mapped_gold(rows.native_gold, "goemotions", "goemotions"), rows.native_gold)


def test_an_unknown_protocol_names_what_there_is() -> None:
    with pytest.raises(UsageError, match="'plutchik'") as failed:
        load_rows("plutchik")
    assert "goemotions, ekman, sentiment, shared10, empathetic, empathetic10" in failed.value.hint


def test_a_protocol_fixes_lens_and_taxonomy(corpora: Path) -> None:
    with pytest.raises(UsageError, match="own taxonomy"):
        load_rows("ekman", "dev", source=corpora, taxonomy="sentiment")
    with pytest.raises(UsageError, match="lens author"):
        load_rows("shared10", "dev", source=corpora, lens=Lens.READER)


def test_a_missing_split_is_named(corpora: Path) -> None:
    with pytest.raises(DataError, match="no train split"):
        load_rows("goemotions", "train", source=corpora)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,text,emotion\n1,\"one, two\nlines\",joy\n2,,neutral\n"),
        ("a.csv", b"\xef\xbb\xbftext,emotion,id\r\n\"one, two\nlines\",joy,1\r\n,neutral,2\r\n"),
        ("a.tsv", b'emotion\ttext\njoy\t"one, two\nlines"\nneutral\t\n'),
        ("a.csv", "text,emotion\n\"one, two\nlines\",joy\n,neutral\n".encode("utf-16")),
        ("a.jsonl", b'{"text": "one, two\\nlines", "emotion": "joy", "x": NaN}\n\n{"text": "", "emotion": "neutral"}'),
    ],
)  # fmt: skip
def test_a_file_of_one_s_own(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    rows = load_rows(str(path))
    labels = load_taxonomy("goemotions").labels
    assert rows.texts == ("one, two\nlines", "")
    assert [labels[row.argmax()] for row in rows.gold] == ["joy", "neutral"]
    assert (rows.protocol, rows.split, rows.taxonomy, rows.thresholded) == (str(path), None, "goemotions", False)
    assert rows.gold.sum() == 2


BOTH = {
    "a.csv": b"text,emotion,reader_emotion\nx,joy,proud\ny,anger,annoyed\n",
    "a.jsonl": b'{"text": "x", "emotion": "joy", "reader_emotion": "proud"}\n'
    b'{"text": "y", "emotion": "anger", "reader_emotion": "annoyed"}',
}


@pytest.mark.parametrize("name", BOTH)
def test_a_file_with_labels_of_both_lenses(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BOTH[name])

    def gold(lens: Lens, taxonomy: str | None = None) -> list[str]:
        rows = load_rows(str(path), lens=lens, taxonomy=taxonomy)
        return [load_taxonomy(rows.taxonomy).labels[row.argmax()] for row in rows.gold]

    assert gold(Lens.AUTHOR) == ["joy", "anger"]
    assert gold(Lens.READER) == gold(Lens.READER, "empathetic") == ["proud", "annoyed"]
    with pytest.raises(DataError, match="'proud', which shared10 lacks"):  # the taxonomy that is named rules
        gold(Lens.READER, "shared10")
    path.write_bytes(BOTH[name].replace(b"reader_emotion", b"emotion_2").replace(b"joy", b"sad"))
    with pytest.raises(DataError, match="'anger', which empathetic lacks"):  # without it the emotion counts, as ever
        gold(Lens.READER)
    path.write_bytes(BOTH[name].replace(b'"emotion": "joy", ', b"").replace(b",emotion,", b",e,"))
    assert gold(Lens.READER) == ["proud", "annoyed"]


def test_the_samples_can_be_judged_through_either_lens() -> None:
    for name in ("golden", "situations_dev"):
        path = str(asset("data", "samples", f"{name}.jsonl"))
        author, reader = (load_rows(path, lens=lens) for lens in Lens)
        assert author.texts == reader.texts
        assert (author.gold.shape[1], reader.gold.shape[1]) == (28, 32)


def test_a_file_in_another_taxonomy(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,emotion\nx,positive\ny,negative\n", encoding="utf-8")
    assert load_rows(str(path), taxonomy="sentiment", limit=1).gold.tolist() == [[True, False, False, False]]
    with pytest.raises(UsageError, match="cannot answer"):
        load_rows(str(path), taxonomy="empathetic")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.csv", b"", "has: nothing"),
        ("a.csv", b"text;emotion\nx;joy\n", "has: text;emotion"),
        ("a.csv", b"text,text,emotion\nx,y,joy\n", "once each"),
        ("a.csv", b"text,emotion\nx,joy\ny\n", "line 3, has 1 cells"),
        ("a.csv", b"text,emotion\nx,hapiness\n", "'hapiness'"),
        ("a.csv", b"text,emotion\n", "no row"),
        ("a.csv", b"text,emotion\n\xff\xfa,joy\n", "no UTF-8"),
        ("a.jsonl", b'[{"text": "x", "emotion": "joy"}]', "no JSON object"),
        ("a.jsonl", b'{"text": "x", "emotion": "joy"}\n{"text": "y", "em', "line 2, is no JSON"),
        ("a.jsonl", b'{"text": 5, "emotion": "joy"}', "no string"),
        ("a.jsonl", b'{"text": "x"}', "no string in text and emotion"),
    ],
)
def test_a_broken_file_names_the_place(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=named):
        load_rows(str(path))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("none.csv", "folder.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            load_rows(str(tmp_path / name))


def test_a_cell_may_be_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,emotion\n" + "x" * 10_000_000 + ",joy\n", encoding="utf-8")
    assert len(load_rows(str(path)).texts[0]) == 10_000_000


@pytest.mark.skipif("EMOTION_LRM_CORPORA" not in os.environ, reason="EMOTION_LRM_CORPORA names no corpora folder")
@pytest.mark.parametrize(
    ("protocol", "count"),
    [
        ("goemotions", 5426),
        ("ekman", 5426),
        ("sentiment", 5426),
        ("shared10", 2548),
        ("empathetic", 2770),
        ("empathetic10", 1705),
    ],
)
def test_the_official_dev_split_has_the_known_number_of_rows(protocol: str, count: int) -> None:
    rows = load_rows(protocol, "dev")
    assert len(rows.texts) == count
    assert rows.gold.any(1).all()
