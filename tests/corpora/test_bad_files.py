"""Files that no reader can read end in one sentence that names them; odd but whole ones are read."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.agreement import VOTES, read_votes
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.corpora.jsonl import read_examples
from toolkit.corpora.ratings import read_ratings
from toolkit.corpora.tables import Damage, find_file
from toolkit.errors import DataError

LABELS = load_taxonomy("goemotions").labels
RATING = ",".join(["id", "text", *LABELS]) + "\na,So glad.," + ",".join("1" if n == "joy" else "0" for n in LABELS)
# Each reader with the file it reads and what that holds when all is well: two rows.
READERS: dict[str, tuple[str, str, Callable[[Path], Iterable[Any]]]] = {
    "split": ("goemotions/dev.tsv", "So glad.\t17\ta\nSo sad.\t25\tb\n", lambda d: read_goemotions("dev", d)),
    "ratings": ("goemotions.csv", f"{RATING}\n{RATING.splitlines()[1]}\n", read_ratings),
    "votes": (
        "goemotions/votes.tsv",
        "id\tsampled_votes\na\t17:2\nb\t25:1\n",
        lambda d: read_votes(find_file([d / "goemotions"], VOTES) or d / "goemotions" / VOTES),
    ),
    "situations": (
        "empathetic/situations_valid.tsv",
        "conv_id\temotion\tsituation\nc:1\tjoyful\tWe won.\nc:2\tsad\tWe lost.\n",
        lambda d: read_empathetic("valid", d),
    ),
    "utterances": (
        "empathetic/utterances_valid.tsv",
        "conv_id\tutterance_idx\temotion\trole\tutterance\nc:1\t1\tjoyful\tspeaker\tWe won.\n"
        "c:1\t2\tjoyful\tlistener\tNice!\nc:1\t3\tjoyful\tspeaker\tI know.\n",
        lambda d: read_empathetic("valid", d, "utterance"),
    ),
}
TABLES = [name for name in READERS if name not in ("split", "ratings")]


def put(folder: Path, reader: str, content: bytes, end: str = "") -> Callable[[], list[Any]]:
    """Write the file of ``reader``; what comes back reads it."""
    name, _, read = READERS[reader]
    path = folder / f"{name}{end}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return lambda: list(read(folder))


def whole(reader: str) -> bytes:
    return READERS[reader][1].encode()


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_file_gives_its_two_rows_plain_and_packed(tmp_path: Path, reader: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder in (plain, packed):
        folder.mkdir()
    rows = put(plain, reader, whole(reader))()
    assert len(rows) == 2
    assert put(packed, reader, gzip.compress(whole(reader)), ".gz")() == rows


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", [lambda c: b"\xef\xbb\xbf" + c, lambda c: c.replace(b"\n", b"\r\n"), bytes.rstrip])
def test_a_mark_windows_ends_and_a_missing_last_end_change_nothing(
    tmp_path: Path, reader: str, change: Callable[[bytes], bytes]
) -> None:
    plain = put(tmp_path, reader, whole(reader))()
    assert put(tmp_path, reader, change(whole(reader)))() == plain


@pytest.mark.parametrize("reader", READERS)
def test_an_empty_file_is_named(tmp_path: Path, reader: str) -> None:
    with pytest.raises(DataError, match=rf"{READERS[reader][0]} is empty"):
        put(tmp_path, reader, b"")()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, reader: str, encoding: str) -> None:
    content = READERS[reader][1].encode(encoding)
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    with pytest.raises(DataError, match=r"is in UTF-16") as refused:
        put(tmp_path, reader, mark + content)()
    assert refused.value.hint == "Save it as UTF-8."


@pytest.mark.parametrize("reader", READERS)
def test_a_cut_or_false_gzip_file_is_named(tmp_path: Path, reader: str) -> None:
    packed = gzip.compress(whole(reader) * 50)
    for content in (packed[: len(packed) // 2], whole(reader)):
        with pytest.raises(DataError, match="cut off or no gzip file"):
            put(tmp_path, reader, content, ".gz")()


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_or_a_folder_in_its_place_is_named(tmp_path: Path, reader: str) -> None:
    name, _, read = READERS[reader]
    with pytest.raises(DataError):
        list(read(tmp_path))
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError):
        list(read(tmp_path))


@pytest.mark.parametrize("reader", READERS)
def test_no_permission_is_named(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = put(tmp_path, reader, whole(reader))

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("toolkit.corpora.tables.open", refuse, raising=False)
    with pytest.raises(DataError, match=r"Cannot read .*Permission denied"):
        read()


def test_no_permission_for_the_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empatheticdialogues.tar.gz").write_bytes(b"x")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("toolkit.corpora.empathetic.tarfile.open", refuse)
    with pytest.raises(DataError, match=r"Cannot read .*Permission denied"):
        list(read_empathetic("valid", tmp_path))


@pytest.mark.parametrize("reader", TABLES)
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda c: c.replace(b"\t", b";"), "lacks the column"),
        (lambda c: c.split(b"\n", 1)[1], "lacks the column"),
        (lambda c: c.replace(b"\n", b"\tmore\n", 1), "columns where the header has"),
        (lambda c: b"\n" + c, "lacks the column"),
        (lambda _: b"<!doctype html><html>Not found</html>", "lacks the column"),
        (lambda _: bytes(range(256)) * 9, "lacks the column"),
    ],
)
def test_a_wrong_form_is_named(tmp_path: Path, reader: str, change: Callable[[bytes], bytes], cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        put(tmp_path, reader, change(whole(reader)))()


@pytest.mark.parametrize("reader", ["votes", "situations", "utterances", "ratings"])
def test_a_doubled_column_is_named(tmp_path: Path, reader: str) -> None:
    mark = b"," if reader == "ratings" else b"\t"
    head, rest = whole(reader).split(b"\n", 1)
    first = head.split(mark)[0]
    with pytest.raises(DataError, match=rf"the column '{first.decode()}' twice"):
        put(tmp_path, reader, head + mark + first + b"\n" + rest)()


def test_a_lost_quotation_mark_spoils_the_file_and_says_so(tmp_path: Path) -> None:
    lost = whole("ratings").replace(b"So glad.", b'"So glad.', 1)
    with pytest.raises(DataError, match=r"line 2, has \d+ columns where the header has 30"):
        put(tmp_path, "ratings", lost)()


def test_ragged_rows_are_passed_over_and_counted(tmp_path: Path) -> None:
    content = whole("ratings") + b"b,short\n" + RATING.splitlines()[1].encode() + b",0,0\n\n"
    put(tmp_path, "ratings", content)
    damage = Damage()
    assert len(list(read_ratings(tmp_path, damage))) == 2
    assert damage.count == 3
    assert all("columns where the header has 30" in cause for cause in damage.shown)


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "a", "labels": ["joy"], "weight": NaN}',
        b'{"text": "a", "labels": ["joy"], "weight": 1e999}',
        b"[1]",
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_a_bad_line_of_json_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "labels": ["joy"]}\n\n' + line)
    rows = read_examples(path)
    assert next(rows).text == "a"
    with pytest.raises(DataError, match=r"x\.jsonl, line 3"):
        next(rows)


def test_json_lines_that_are_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*: Is a directory"):
        list(read_examples(tmp_path))
