"""Files as people have them: every row is read or named, and what no row can be read of ends in one sentence."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from toolkit import EmotionModel
from toolkit.apps import tables
from toolkit.apps.batch import run_batch
from toolkit.apps.tables import open_table
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import DataError
from toolkit.inference.request import Wish

from .conftest import Run, check_sentence, records
from .files import ENCODINGS, MEGABYTE, QUOTED, READ, REFUSED, as_stored, parquet_of


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(as_stored(name, content))
    return path


def batch(run: Run, source: Path | str, out: Path, *options: str, stdin: bytes = b"") -> tuple[int, Any, str]:
    """Exit code, the rows that came out (or None), and standard error."""
    code, told, err = run("batch", str(source), "-o", str(out), "--mode", "fast", *options, stdin=stdin)
    assert told == b""
    return code, records(out.read_bytes()) if out.exists() else None, err


# What no row can be read of


def test_no_bytes_from_standard_input(run: Run, tmp_path: Path) -> None:
    code, rows, err = batch(run, "-", tmp_path / "o.jsonl")
    assert "is empty." in check_sentence(code, err)
    assert rows is None


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_that_can_be_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(tables, "LARGEST_CELL", 1000)
    name, content, told = REFUSED[case]
    code, rows, err = batch(run, put(tmp_path, name, content), tmp_path / "o.jsonl")
    assert told in check_sentence(code, err)
    assert rows is None


@pytest.mark.parametrize("form", ["csv", "jsonl", "txt", "parquet"])
def test_gzip_that_was_cut_off(run: Run, tmp_path: Path, form: str) -> None:
    content = {
        "csv": b"id,text\n" + b"".join(b"%d,%s\n" % (n, os.urandom(40).hex().encode()) for n in range(9000)),
        "jsonl": b"".join(b'{"text": "%s"}\n' % os.urandom(40).hex().encode() for _ in range(9000)),
        "txt": b"".join(os.urandom(40).hex().encode() + b"\n" for _ in range(9000)),
        "parquet": parquet_of({"text": [os.urandom(40).hex() for _ in range(9000)]}),
    }[form]
    path = tmp_path / f"in.{form}.gz"
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) // 2])
    code, rows, err = batch(run, path, tmp_path / "o.jsonl")
    assert "damaged or cut off" in check_sentence(code, err)
    assert rows is None


@pytest.mark.parametrize(
    ("source", "out", "told"),
    [
        ("missing.csv", "o.jsonl", "No such file or folder"),
        ("folder", "o.jsonl", "This is a folder, not a file"),
        ("in.txt", "folder.jsonl", "This is a folder, not a file"),
        ("in.txt", "in.txt/o.jsonl", "A file stands where a folder is needed"),
    ],
)
def test_what_is_not_there(run: Run, tmp_path: Path, source: str, out: str, told: str) -> None:
    for folder in ("folder", "folder.jsonl"):
        (tmp_path / folder).mkdir()
    put(tmp_path, "in.txt", b"a\n")
    code, _, err = run("batch", str(tmp_path / source), "-o", str(tmp_path / out))
    assert told in check_sentence(code, err)


# Odd but whole


WHY = {
    "ragged rows": "The row has 4 cells, the table 3 columns.",
    "json lines": "The line is no JSON: Unterminated string starting at.",
}


@pytest.mark.parametrize("case", READ)
def test_every_row_comes_out(run: Run, tmp_path: Path, case: str) -> None:
    name, content, expected = READ[case]
    code, rows, err = batch(run, put(tmp_path, name, content), tmp_path / "o.jsonl")
    assert [(row["id"], row["status"], row["text"]) for row in rows] == expected
    assert [row["row"] for row in rows] == list(range(len(expected)))
    assert code == (3 if any(status == "error" for _, status, _ in expected) else 0)
    assert WHY.get(case, "") in err
    assert len(err) < 3_000


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_guessed_is_said(run: Run, tmp_path: Path, encoding: str) -> None:
    _, _, err = batch(run, put(tmp_path, "in.csv", QUOTED.encode(encoding)), tmp_path / "o.jsonl")
    assert "Delimiter: ';' (guessed; --delimiter chooses another)." in err
    assert "Text column: comment (guessed; --text-column chooses another)." in err
    assert ("Encoding: " in err) == (not encoding.startswith("utf-8"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_that_the_file_is_not_in(run: Run, tmp_path: Path, encoding: str) -> None:
    source = put(tmp_path, "in.csv", b"id;text\n1;a b\n")
    code, rows, err = batch(run, source, tmp_path / "o.jsonl", "--encoding", encoding)
    assert f"in.csv is no {encoding}: " in check_sentence(code, err)
    assert rows is None


def test_another_delimiter_than_the_one_that_was_given(run: Run, tmp_path: Path) -> None:
    source = put(tmp_path, "in.csv", b"id;text\n1;a b\n2;c d\n")
    code, rows, err = batch(run, source, tmp_path / "o.jsonl", "--delimiter", ",", "--text-column", "text")
    assert "There is no column 'text'." in check_sentence(code, err, 2)
    assert rows is None
    code, rows, err = batch(run, source, tmp_path / "o.jsonl", "--delimiter", ";")
    assert (code, [row["text"] for row in rows]) == (0, ["a b", "c d"])
    assert "Delimiter" not in err


def test_columns_that_are_doubled_missing_or_numbers(run: Run, tmp_path: Path) -> None:
    source = put(tmp_path, "in.csv", b"text,key,text\nfirst one,007,second one\nfirst two,3.5,second two\n")
    code, _, err = batch(run, source, tmp_path / "o.jsonl", "--text-column", "text")
    assert "2 columns are named 'text'." in check_sentence(code, err, 2)
    code, _, err = batch(run, source, tmp_path / "o.jsonl", "--text-column", "texts")
    assert "There is no column 'texts'." in check_sentence(code, err, 2)
    code, rows, _ = batch(run, source, tmp_path / "o.jsonl", "--text-column", "3", "--id-column", "key")
    assert [(row["id"], row["text"]) for row in rows] == [("007", "second one"), ("3.5", "second two")]


@pytest.mark.parametrize(
    ("content", "form"),
    [(b'{"text": "a b"}\n', "jsonl"), (b"id\ttext\n1\ta b\n", "csv"), (b"a b\n", "txt")],
)
def test_what_standard_input_holds_is_found_and_said(run: Run, tmp_path: Path, content: bytes, form: str) -> None:
    for raw in (content, gzip.compress(content)):
        code, rows, err = batch(run, "-", tmp_path / "o.jsonl", "--overwrite", stdin=raw)
        assert (code, rows[0]["text"]) == (0, "a b")
        assert f"Form: {form} (guessed; --format chooses another)." in err


# A run that was interrupted


INTERRUPTED = """
import sys
from toolkit.apps import batch, tables

count = 0
real = tables.Row
def row(*given):
    global count
    count += 1
    if count > 60:
        raise KeyboardInterrupt
    return real(*given)
batch.open_table.__globals__["Row"] = row
from toolkit.cli import main
sys.exit(main(["batch", *sys.argv[1:], "--mode", "fast", "--threads", "1"]))
"""


@pytest.mark.parametrize("out", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_cut_last_line_does_not_keep_a_run_from_going_on(run: Run, tiny: Path, tmp_path: Path, out: str) -> None:
    lines = [json.dumps({"id": n, "text": f"text number {n}"}) for n in range(39)]
    source = put(tmp_path, "in.jsonl", "\n".join([*lines, '{"id": 39, "text": "cut o']).encode())
    # Every row is looked at once before the work, so the sixtieth look is in its middle.
    command = [sys.executable, "-c", INTERRUPTED, str(source), "-o", str(tmp_path / out), "--model", str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "--resume continues from there." in done.stderr
    partial = tmp_path / f"{out}.partial"
    kept = partial.read_bytes().count(b"\n")
    with open(partial, "ab") as file:
        file.write(b'{"id": 7, "row": 7, "status": "o')  # and the output's last line is cut off as well
    code, _, err = run("batch", str(source), "-o", str(tmp_path / out), "--mode", "fast")
    assert "was interrupted" in check_sentence(code, err, 2)
    code, _, err = run("batch", str(source), "-o", str(tmp_path / out), "--mode", "fast", "--resume")
    assert code == 3, err
    assert kept == 0 or f"Resuming after {kept} of 40 rows." in err
    found = read_any(tmp_path / out)
    assert [str(row["id"]) for row in found] == [str(n) for n in range(40)]
    assert [row["status"] for row in found] == ["ok"] * 39 + ["error"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", out}


def read_any(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return records(path.read_bytes())


def test_an_input_that_changed_is_refused(tiny: Path, run: Run, tmp_path: Path) -> None:
    source = put(tmp_path, "in.txt", b"".join(b"text number %d\n" % n for n in range(40)))
    command = [sys.executable, "-c", INTERRUPTED, str(source), "-o", str(tmp_path / "o.jsonl"), "--model", str(tiny)]
    assert subprocess.run(command, capture_output=True).returncode == 130
    with open(source, "ab") as file:
        file.write(b"one more\n")
    code, _, err = run("batch", str(source), "-o", str(tmp_path / "o.jsonl"), "--mode", "fast", "--resume")
    assert "The input has changed" in check_sentence(code, err)


def test_an_input_that_changes_while_it_is_read_is_told_apart(tmp_path: Path, model: EmotionModel) -> None:
    source = put(tmp_path, "in.txt", b"".join(b"text number %d\n" % n for n in range(40)))

    class Meddling:
        name = "meddling"

        def analyze_many(self, texts: Iterable[str], **options: Any) -> Iterator[Analysis]:
            for reading in model.analyze_many(texts, **options):
                source.write_bytes(source.read_bytes() + b"another\n")
                yield reading

    wish = Wish(Lens.AUTHOR, "goemotions", "fast")
    with pytest.raises(DataError, match="changed while it was read"):
        run_batch(Meddling(), open_table(source), tmp_path / "o.jsonl", wish=wish)
    assert not (tmp_path / "o.jsonl").exists()


# Permissions and full disks, as the kernel enforces them

posix = pytest.mark.skipif(os.name == "nt", reason="permissions and mounts of POSIX")


def as_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the right to read and write everything, which root has."""
    command = [sys.executable, "-m", "toolkit.cli", *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(command, capture_output=True, text=True)


@posix
def test_no_permission(tmp_path: Path) -> None:
    locked, source = put(tmp_path, "locked.csv", b"text,emotion\na,joy\n"), put(tmp_path, "in.csv", b"text\na\n")
    locked.chmod(0)
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o555)
    out = str(tmp_path / "o.jsonl")
    for arguments in (
        ("batch", str(locked), "-o", out),
        ("batch", str(source), "-o", str(folder / "o.jsonl")),
        ("batch", str(source), "-o", str(folder / "new" / "o.jsonl")),
        ("evaluate", str(locked)),
    ):
        done = as_user(*arguments)
        told = check_sentence(done.returncode, done.stderr)
        assert "ermission" in told, told


MOUNTED = (
    shutil.which("unshare")
    and not subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
)


def in_mount(size: str, script: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script that finds a file system of its own, of so many bytes, in ``room``."""
    (folder / "room").mkdir(exist_ok=True)
    script = f"mount -t tmpfs -o size={size} none room && {script}"
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.skipif(not MOUNTED, reason="no file system can be mounted; test_batch fills up a limit instead")
@pytest.mark.parametrize(("out", "rows", "size"), [("o.jsonl", 400, "300k"), ("o.csv", 200, "300k")])
def test_a_full_disk(tiny: Path, tmp_path: Path, out: str, rows: int, size: str) -> None:
    put(tmp_path, "in.txt", b"".join(b"text number %d\n" % n for n in range(rows)))
    batch = f'"$1" -m toolkit.cli batch in.txt -o room/{out} --mode fast --model "$2" --threads 1'
    script = f"{batch}; echo code $? >&2; mount -o remount,size=9m room && {batch} --resume && cp room/* ."
    done = in_mount(size, script, tmp_path, tiny)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.split("code 1\n")
    assert "The disk is full" in check_sentence(1, first)
    assert "--resume continues from there." in first
    assert "Resuming after " in second
    assert (f"Resuming after {rows} of {rows} rows" in second) == (out == "o.csv")  # there it was full at the very end
    found = read_any(tmp_path / out)
    assert [row["text"] for row in found] == [f"text number {n}" for n in range(rows)]
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", out, "room"}


@pytest.mark.skipif(not MOUNTED, reason="no file system can be mounted")
def test_a_read_only_file_system_is_found_out_before_the_work(tmp_path: Path) -> None:
    put(tmp_path, "in.txt", b"a\n")
    done = in_mount("300k", 'mount -o remount,ro room && "$1" -m toolkit.cli batch in.txt -o room/o.jsonl', tmp_path)
    assert "read-only" in check_sentence(done.returncode, done.stderr)


# A file to judge a model by


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "has: nothing"),
        ("a.jsonl", b"", "no row to judge"),
        ("a.csv", b"text;emotion\nx;joy\n", "has: text;emotion"),
        ("a.csv", b"text,text,emotion\nx,y,joy\n", "once each"),
        ("a.csv", b"words,emotion\nx,joy\n", "needs the columns text and emotion"),
        ("a.csv", b"text,emotion\nx,joy\ny\n", "has 1 cells"),
        ("a.csv", b"text,emotion\n\xff\xfa,joy\n", "no UTF-8"),
        ("a.csv", b"text,emotion\nx,\n", "has the emotion ''"),
        ("a.jsonl", b'[{"text": "x", "emotion": "joy"}]', "no JSON object"),
        ("a.jsonl", b'{"text": "x", "emotion": "joy"}\n{"text": "y", "em', "line 2, is no JSON"),
        ("a.jsonl", b'{"text": NaN, "emotion": "joy"}', "no string in text and emotion"),
        ("a.jsonl", b"[" * MEGABYTE, "is no JSON"),
    ],
)
def test_a_file_that_cannot_judge(run: Run, tmp_path: Path, name: str, content: bytes, told: str) -> None:
    code, out, err = run("evaluate", str(put(tmp_path, name, content)))
    assert told in check_sentence(code, err)
    assert out == b""
    for absent in ("none.csv", "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        code, out, err = run("evaluate", str(tmp_path / absent))
        assert "cannot be read" in check_sentence(code, err)


def test_a_file_that_judges_although_it_is_odd(run: Run, tmp_path: Path) -> None:
    lines = [
        '{"id": 1, "text": "a", "emotion": "joy"}', "", '{"id": 1, "text": "", "emotion": "anger", "x": NaN}',
        '{"text": "b", "emotion": "joy", "more": "' + "y" * 10 * MEGABYTE + '"}',
    ]  # fmt: skip
    for name, content in (
        ("a.jsonl", "\n".join(lines).encode()),
        ("a.csv", 'emotion,text\r\njoy,"a\nb"\r\nanger,\r\njoy,b\r\n'.encode("utf-16")),
    ):
        code, out, err = run("evaluate", str(put(tmp_path, name, content)), "--json", "--mode", "fast")
        assert code == 0, err
        assert json.loads(out)["n"] == 3
