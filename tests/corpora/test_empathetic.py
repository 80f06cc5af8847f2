"""EmpatheticDialogues is read from tables, from the archive and from the hub, to the same examples."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.empathetic import find_empathetic, read_empathetic
from toolkit.corpora.tables import Damage
from toolkit.errors import DataError

COLUMNS = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"
TURNS = (
    ("c:1", "1", "proud", 'My son_comma_ "the quiet one"_comma_ sang.', "7", "He sang today_comma_ alone.", "5|5", ""),
    ("c:1", "2", "proud", 'My son_comma_ "the quiet one"_comma_ sang.', "9", "How lovely!", "5|5", ""),
    ("c:1", "3", "proud", 'My son_comma_ "the quiet one"_comma_ sang.', "7", "I cried.", "5|5", "<HI>"),
    ("c:2", "1", "lonely", "Nobody wrote.", "9", "Not one letter.", "4|4", "", "a rival_comma_ reply", "another"),
)
SITUATIONS = [
    Example('My son, "the quiet one", sang.', ("proud",), Lens.READER, "c:1"),
    Example("Nobody wrote.", ("lonely",), Lens.READER, "c:2"),
]
UTTERANCES = [
    Example("He sang today, alone.", ("proud",), Lens.READER, "c:1/1"),
    Example("I cried.", ("proud",), Lens.READER, "c:1/3"),
    Example("Not one letter.", ("lonely",), Lens.READER, "c:2/1"),
]


def table(source: Path, name: str, rows: list[str]) -> None:
    folder = source / "empathetic"
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / name, "wt", encoding="utf-8", newline="") as file:
        file.write("\n".join(rows) + "\n")


def archive(path: Path, lines: list[str], member: str = "empatheticdialogues/valid.csv") -> None:
    content = "\n".join(lines).encode()
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    rows = [f"{e.id}\t{e.labels[0]}\t{e.text}" for e in SITUATIONS]
    table(tmp_path, "situations_valid.tsv.gz", ["conv_id\temotion\tsituation", *rows])
    turns = [
        "\t".join((t[0], t[1], t[2], "listener" if t[1] == "2" else "speaker", t[5].replace("_comma_", ",")))
        for t in TURNS
    ]
    table(tmp_path, "utterances_valid.tsv.gz", ["conv_id\tutterance_idx\temotion\trole\tutterance", *turns])
    return tmp_path


def test_tables_give_situations_and_the_speakers_utterances(tables: Path) -> None:
    assert list(read_empathetic("valid", tables)) == SITUATIONS
    assert list(read_empathetic("dev", tables, "utterance")) == UTTERANCES


@pytest.mark.parametrize("inside", [True, False])
def test_the_archive_gives_the_same(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "empathetic").mkdir()
    folder = tmp_path / "empathetic" if inside else tmp_path
    archive(folder / "empatheticdialogues.tar.gz", [COLUMNS, *(",".join(t) for t in TURNS)])
    assert list(read_empathetic("dev", tmp_path)) == SITUATIONS
    assert list(read_empathetic("valid", tmp_path, "utterance")) == UTTERANCES


def test_where_a_conversations_first_row_is_damaged_the_listener_becomes_no_speaker(tmp_path: Path) -> None:
    path, torn = tmp_path / "empatheticdialogues.tar.gz", ["c:1,1,proud", *(",".join(t) for t in TURNS[1:])]
    archive(path, [COLUMNS, *torn])
    damage = Damage()
    assert list(read_empathetic("valid", tmp_path, "utterance", damage)) == UTTERANCES[1:]
    assert damage.shown == [f"{path}, valid.csv, line 2, has 3 columns where the header has 8."]
    assert list(read_empathetic("valid", tmp_path, damage=damage)) == SITUATIONS
    assert damage.count == 2


def test_a_situation_is_read_from_the_first_whole_row_that_tells_it(tmp_path: Path) -> None:
    first = (*TURNS[0][:2], "gleeful", *TURNS[0][3:])
    archive(tmp_path / "empatheticdialogues.tar.gz", [COLUMNS, *(",".join(t) for t in (first, *TURNS[1:]))])
    damage = Damage()
    assert list(read_empathetic("valid", tmp_path, damage=damage)) == SITUATIONS
    assert damage.count == 1


def test_where_no_turn_tells_the_speaker_the_row_is_damaged(tmp_path: Path) -> None:
    turns = [(name, turn, *rest) for (name, _, *rest), turn in zip(TURNS, ("one", "0", "3", ""), strict=True)]
    archive(tmp_path / "empatheticdialogues.tar.gz", [COLUMNS, *(",".join(t) for t in turns)])
    with pytest.raises(DataError, match=r"line 2, has the utterance_idx 'one'"):
        list(read_empathetic("valid", tmp_path, "utterance"))
    damage = Damage()
    assert list(read_empathetic("valid", tmp_path, "utterance", damage)) == [UTTERANCES[1]]
    assert damage.count == 3


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("c:3\tgleeful\tWe won.", "the emotion 'gleeful'"),
        ("c:3\tjoyful\t ", "no text"),
        ("c:3\tjoyful", "2 columns"),
        ("c:3\tjoyful\tWe\twon", "4 columns"),
    ],
)
def test_damaged_rows_are_named_or_counted(tmp_path: Path, row: str, cause: str) -> None:
    table(tmp_path, "situations_valid.tsv.gz", ["conv_id\temotion\tsituation", row, "c:1\tjoyful\tWe won again."])
    with pytest.raises(DataError, match=rf"line 2.*{cause}"):
        list(read_empathetic("valid", tmp_path))
    damage = Damage()
    assert [e.id for e in read_empathetic("valid", tmp_path, damage=damage)] == ["c:1"]
    assert damage.count == len(damage.shown) == 1


@pytest.mark.parametrize(
    ("turn", "role", "cause"),
    [
        ("1", "both", "the role 'both' in the speaker's turn 1"),
        ("1", "listener", "the role 'listener' in the speaker's turn 1"),
        ("2", "speaker", "the role 'speaker' in the listener's turn 2"),
        ("x", "speaker", "the utterance_idx 'x'"),
    ],
)
def test_a_row_whose_role_is_strange_or_belies_its_turn_is_damaged(
    tmp_path: Path, turn: str, role: str, cause: str
) -> None:
    rows = ["conv_id\tutterance_idx\temotion\trole\tutterance", f"c:1\t{turn}\tproud\t{role}\tHe sang."]
    table(tmp_path, "utterances_valid.tsv.gz", rows)
    with pytest.raises(DataError, match=cause):
        list(read_empathetic("valid", tmp_path, "utterance"))


def test_missing_files_splits_and_columns_are_named(tables: Path) -> None:
    with pytest.raises(DataError, match="no situations of test"):
        list(read_empathetic("test", tables))
    with pytest.raises(DataError, match="no split 'half'"):
        list(read_empathetic("half", tables))
    table(tables, "situations_train.tsv.gz", ["conv_id\tmood\tsituation"])
    with pytest.raises(DataError, match="lacks the column 'emotion'"):
        list(read_empathetic("train", tables))
    assert find_empathetic(tables, "dev") == tables / "empathetic" / "situations_valid.tsv.gz"
    assert find_empathetic(tables, "test") is None


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_broken_archive_is_an_expected_failure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empatheticdialogues.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match="no packed archive"):
        list(read_empathetic("valid", tmp_path))


def test_a_cut_archive_and_one_without_the_split_are_named(tmp_path: Path) -> None:
    path = tmp_path / "empatheticdialogues.tar.gz"
    archive(path, [COLUMNS, *(",".join(t) for t in TURNS)])
    with pytest.raises(DataError, match=r"holds no test\.csv"):
        list(read_empathetic("test", tmp_path))
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(DataError, match="cut off"):
        list(read_empathetic("valid", tmp_path))
