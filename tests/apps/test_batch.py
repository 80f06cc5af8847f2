"""`emotion-lrm batch`: one row out for every row in, whatever the file, and clear sentences where it cannot be."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import os
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest

from convert.errors import FileError
from toolkit.apps import journal as journal_module
from toolkit.apps.batch import run_batch
from toolkit.apps.tables import open_table
from toolkit.cli import main
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import DataError, ModelError, UsageError
from toolkit.inference.request import Wish

Make = Callable[..., Analysis]
WISH = Wish(Lens.AUTHOR, "goemotions", "fast")
ANALYSIS_KEYS = [
    "text", "lens", "taxonomy", "mode", "emotion", "fine_emotion", "confidence", "abstained", "emotions", "scores",
    "coverage", "outside", "reasoning", "evidence", "model",
]  # fmt: skip


class Fast:
    """A predictor that answers at once, remembers what it was asked, and fails on texts that say so."""

    name = "fast"

    def __init__(self, reading: Make, ahead: int = 3) -> None:
        self._reading, self._ahead = reading, ahead
        self.seen: list[str] = []

    def analyze_many(self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str) -> Iterator[Analysis]:
        assert (lens, taxonomy, mode) == (WISH.lens, WISH.taxonomy, WISH.mode)
        held: list[str] = []
        for text in texts:
            held.append(text)
            if len(held) > self._ahead:
                yield self._read(held.pop(0))
        yield from map(self._read, held)

    def _read(self, text: str) -> Analysis:
        assert text.strip()
        self.seen.append(text)
        if "fail" in text:
            raise ModelError(f"Cannot read {text}.", "Try another.")
        return self._reading(text=text, reasoning=None, evidence=(), mode="fast", model=self.name)


@pytest.fixture
def fast(reading: Make) -> Fast:
    return Fast(reading)


@pytest.fixture
def command(fast: Fast, monkeypatch: pytest.MonkeyPatch) -> Fast:
    """The fast predictor in the place of the worker processes."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Fast]:
        yield fast

    monkeypatch.setattr("toolkit.apps.batch.open_workers", opened)
    monkeypatch.setenv("EMOTION_LRM_MODE", "fast")
    return fast


def read_out(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_row_in_gives_a_row_out(command: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("id,comment\na,good\nb,\nc,it fails\nd,good\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(tmp_path / "in.csv"), "-o", str(out)]) == 3
    rows = read_out(out)
    assert all(list(row) == ["id", "row", "status", "error", *ANALYSIS_KEYS] for row in rows)
    assert [(r["id"], r["row"], r["status"], r["error"], r["text"]) for r in rows] == [
        ("a", 0, "ok", None, "good"),
        ("b", 1, "empty", None, ""),
        ("c", 2, "error", "Cannot read it fails.", "it fails"),
        ("d", 3, "ok", None, "good"),
    ]
    assert rows[0]["scores"]["sadness"] == 0.22
    assert rows[1]["emotion"] is rows[1]["scores"] is None
    assert command.seen.count("good") <= 2  # asked once; once more because the text behind it failed
    told = capsys.readouterr()
    assert told.out == ""
    assert "Text column: comment (guessed" in told.err
    assert re.search(r"4 rows in \d+ s: 2 ok, 1 empty, 1 error\.", told.err)
    assert "disappointment  ███" in told.err
    assert "1 x Cannot read it fails." in told.err
    assert left_in(tmp_path) == {"in.csv", "out.jsonl"}


def test_empty_rows_alone_are_no_failure(command: Fast, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("good\n\n \t\n", encoding="utf-8")
    assert main(["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "o.jsonl"), "-q"]) == 0
    assert [row["status"] for row in read_out(tmp_path / "o.jsonl")] == ["ok", "empty", "empty"]
    assert command.seen == ["good"]


def test_quiet_says_nothing(command: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    (tmp_path / "in.csv").write_text("comment,n\ngood,1\n", encoding="utf-8")
    assert main(["batch", "-q", str(tmp_path / "in.csv"), "-o", str(tmp_path / "o.jsonl")]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


def test_standard_input_is_read(command: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n{"text": "b"}\n')))
    assert main(["batch", "-", "-o", str(tmp_path / "o.jsonl")]) == 0
    assert command.seen == ["a", "b"]
    assert left_in(tmp_path) == {"o.jsonl"}


def test_standard_input_is_resumed_when_it_comes_again(
    command: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, out = command._read, tmp_path / "o.jsonl"

    def run(content: str, *more: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        return main(["batch", "-", "-o", str(out), *more])

    def interrupted(text: str) -> Analysis:
        if text == "d":
            raise KeyboardInterrupt
        return read(text)

    monkeypatch.setattr(command, "_read", interrupted)
    assert run("a\nb\nc\nd\n") == 130
    assert sentence(capsys) == "Error: Interrupted."
    assert left_in(tmp_path) == {"o.jsonl.partial", "o.jsonl.journal"}
    monkeypatch.setattr(command, "_read", read)
    assert run("a\nb\nc\nD\n", "--resume") == 1
    assert "The input has changed" in sentence(capsys)
    assert run("a\nb\nc\nd\n", "--resume") == 0
    assert "Resuming after 3 of 4 rows." in capsys.readouterr().err
    assert [row["text"] for row in read_out(out)] == ["a", "b", "c", "d"]
    assert command.seen == ["a", "b", "c", "d"]
    assert left_in(tmp_path) == {"o.jsonl"}


def test_a_run_that_is_stopped_closes_its_file_at_once(fast: Fast, tmp_path: Path) -> None:
    """Not only when the error that ended it, and with it whoever read, is collected."""
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"text {number}\n" for number in range(99)))

    def stop(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError) as stopped:
        run_batch(fast, open_table(source), tmp_path / "o.jsonl", wish=WISH, watch=stop)
    assert stopped.traceback
    assert str(source) not in [file.path for file in psutil.Process().open_files()]


def test_exact_duplicates_are_asked_once(fast: Fast, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\nb\na\na \na\n" + "b\n" * 500, encoding="utf-8")
    run_batch(fast, open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    assert fast.seen == ["a", "b", "a "]
    assert [row["text"] for row in read_out(tmp_path / "o.jsonl")][:5] == ["a", "b", "a", "a ", "a"]


def test_the_memory_of_duplicates_is_bounded(fast: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.apps.answers.REMEMBERED", 2)
    (tmp_path / "in.txt").write_text("a\nb\nc\na\n", encoding="utf-8")
    run_batch(fast, open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    assert fast.seen == ["a", "b", "c", "a"]


def test_a_failing_text_costs_its_row_only(fast: Fast, tmp_path: Path) -> None:
    texts = [f"text {n}" if n % 7 else f"fail {n}" for n in range(100)]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    tally = run_batch(fast, open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    rows = read_out(tmp_path / "o.jsonl")
    assert [row["text"] for row in rows] == texts
    assert [row["row"] for row in rows if row["status"] == "error"] == list(range(0, 100, 7))
    assert tally.status == {"ok": 85, "error": 15}


def test_a_predictor_with_outcomes_is_asked_for_them(reading: Make, tmp_path: Path) -> None:
    class Workers(Fast):
        def outcomes(self, texts: Iterable[str], **_: Any) -> Iterator[Analysis | ModelError]:
            for text in texts:
                yield ModelError("no") if "fail" in text else self._read(text)

    (tmp_path / "in.txt").write_text("a\nfail\nb\n", encoding="utf-8")
    workers = Workers(reading)
    run_batch(workers, open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    assert [row["error"] for row in read_out(tmp_path / "o.jsonl")] == [None, "no", None]
    assert workers.seen == ["a", "b"]


def test_a_model_that_is_gone_ends_the_run(fast: Fast, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"fail {n}\n" for n in range(1000)), encoding="utf-8")
    with pytest.raises(ModelError, match="Cannot read fail"):
        run_batch(fast, open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    assert len(fast.seen) < 60
    assert not (tmp_path / "o.jsonl").exists()


# Outputs


NASTY = ["=cmd()", "-1 and so on", "a,b\n\"c\"", "\u2028 \x85 \x00", "[red]x[/red]", "é 😀", "plain"]  # fmt: skip


def test_csv_is_safe_in_a_spreadsheet_and_keeps_everything_else(fast: Fast, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": t, "id": n}) + "\n" for n, t in enumerate(NASTY)), encoding="utf-8")
    run_batch(fast, open_table(source), tmp_path / "o.csv", wish=WISH)
    with open(tmp_path / "o.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["'=cmd()", "'-1 and so on", *NASTY[2:]]
    assert rows[0]["emotions"] == "disappointment, sadness"
    assert float(rows[0]["score_sadness"]) == 0.22
    assert left_in(tmp_path) == {"in.jsonl", "o.csv"}


def test_parquet_has_types(fast: Fast, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [*NASTY, "", "\ud800 lone"]
    source.write_text("".join(json.dumps({"text": t, "id": n}) + "\n" for n, t in enumerate(rows)), encoding="utf-8")
    run_batch(fast, open_table(source), tmp_path / "o.parquet", wish=WISH)
    found = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [row["text"] for row in found] == [*NASTY, "", "\\ud800 lone"]
    assert found[0]["emotions"] == ["disappointment", "sadness"]
    assert found[0]["score_sadness"] == 0.22
    assert (found[7]["status"], found[7]["emotion"], found[7]["score_joy"]) == ("empty", None, None)


def test_texts_come_back_from_jsonl_exactly(fast: Fast, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    texts = [*NASTY, "\ud800 lone", "x" * 1_000_000, "😀" * 100_000, '"}', "<|im_end|>", "\x1b[31m"]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    run_batch(fast, open_table(source), tmp_path / "o.jsonl", wish=WISH)
    assert [row["text"] for row in read_out(tmp_path / "o.jsonl")] == texts


@pytest.mark.parametrize("name", ["out", "out.xlsx", "out.txt"])
def test_an_output_without_a_known_form_is_refused(command: Fast, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    assert main(["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / name)]) == 2
    assert command.seen == []


# What stands in the way


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return next(line for line in told.splitlines() if line.startswith("Error: "))


def test_existing_output_is_refused(command: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    out = tmp_path / "o.jsonl"
    out.write_text("precious", encoding="utf-8")
    arguments = ["batch", str(tmp_path / "in.txt"), "-o", str(out)]
    assert main(arguments) == 2
    assert "exists already" in sentence(capsys)
    assert out.read_text(encoding="utf-8") == "precious"
    assert main([*arguments, "--resume", "--overwrite"]) == 2
    assert command.seen == []
    assert main([*arguments, "--overwrite"]) == 0
    assert len(read_out(out)) == 1
    assert main([*arguments, "--resume"]) == 0  # nothing to resume: afresh
    assert command.seen == ["a", "a"]


def test_the_input_is_never_the_output(command: Fast, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n', encoding="utf-8")
    assert main(["batch", str(source), "-o", str(source), "--overwrite"]) == 2
    assert source.read_text(encoding="utf-8") == '{"text": "a"}\n'
    assert command.seen == []


@pytest.mark.parametrize(
    ("source", "output", "told"),
    [
        ("missing.csv", "o.jsonl", "No such file or folder"),
        ("folder", "o.jsonl", "This is a folder, not a file"),
        ("empty.csv", "o.jsonl", "is empty"),
        ("in.txt", "folder.jsonl", "This is a folder, not a file"),
        ("in.txt", "in.txt/o.jsonl", "A file stands where a folder is needed"),
        ("cut.csv.gz", "o.jsonl", "damaged or cut off"),
        ("array.jsonl", "o.jsonl", "one JSON array"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    command: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, output: str, told: str
) -> None:
    import gzip

    for folder in ("folder", "folder.jsonl"):
        (tmp_path / folder).mkdir()
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "array.jsonl").write_text('[\n{"text": "a"}\n]\n', encoding="utf-8")
    packed = gzip.compress(b"text,n\n" + os.urandom(500_000).hex().encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert main(["batch", str(tmp_path / source), "-o", str(tmp_path / output)]) == 1
    assert told in sentence(capsys)
    assert command.seen == []


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "No permission"),
        (errno.EROFS, "The file system is read-only"),
        (errno.ENOSPC, "The disk is full"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(
    command: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int,
    told: str,
) -> None:  # fmt: skip
    def refuse(**_: Any) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    monkeypatch.setattr(journal_module.tempfile, "TemporaryFile", refuse)
    assert main(["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "o.jsonl")]) == 1
    assert told in sentence(capsys)
    assert command.seen == []


def test_a_disk_that_fills_up_leaves_a_run_that_can_be_resumed(
    fast: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    (tmp_path / "in.txt").write_text("".join(f"text {n}\n" for n in range(300)), encoding="utf-8")
    out = tmp_path / "o.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(journal_module, "CHECKPOINT_EVERY", 0.0)
    ignored = __import__("signal")
    before = ignored.signal(ignored.SIGXFSZ, ignored.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a real refusal to write any further
    try:
        with pytest.raises(FileError, match="larger than is allowed"):
            run_batch(fast, open_table(tmp_path / "in.txt"), out, wish=WISH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ignored.signal(ignored.SIGXFSZ, before)
    done = len(fast.seen)
    assert 50 < done < 300
    run_batch(fast, open_table(tmp_path / "in.txt"), out, wish=WISH, resume=True)
    assert [row["text"] for row in read_out(out)] == [f"text {n}" for n in range(300)]
    assert len(fast.seen) < 300 + 10


@pytest.mark.parametrize("change", ["grown", "other"])
def test_changed_input_is_refused_on_resume(fast: Fast, tmp_path: Path, change: str) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "o.jsonl"
    source.write_text("a\nb\n" + "fail\n" * 2 + "".join(f"fail {n}\n" for n in range(40)), encoding="utf-8")
    with pytest.raises(ModelError):
        run_batch(fast, open_table(source), out, wish=WISH)
    with pytest.raises(UsageError, match="interrupted"):
        run_batch(fast, open_table(source), out, wish=WISH)
    with pytest.raises(UsageError, match="another mode: 'fast', not 'explain'"):
        run_batch(fast, open_table(source), out, wish=dataclasses.replace(WISH, mode="explain"), resume=True)
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "c\n" if change == "grown" else text.replace("b", "c"), encoding="utf-8")
    with pytest.raises(DataError, match="The input has changed"):
        run_batch(fast, open_table(source), out, wish=WISH, resume=True)


def test_two_runs_never_write_one_output(command: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    with journal_module.alone(tmp_path / "o.jsonl"):
        for source in (str(tmp_path / "in.txt"), "-"):  # before standard input is read
            assert main(["batch", source, "-o", str(tmp_path / "o.jsonl")]) == 2
            assert "Another run is writing" in sentence(capsys)
    assert command.seen == []
    assert left_in(tmp_path) == {"in.txt"}


# Size and figures


def peak_of(fast: Fast, source: Path, out: Path) -> int:
    tracemalloc.start()
    try:
        run_batch(fast, open_table(source), out, wish=WISH)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Forgetful(Fast):
    """Answers at once and remembers nothing."""

    def _read(self, text: str) -> Analysis:
        return self._reading(text=text, reasoning=None, evidence=(), mode="fast", model=self.name)


def write_rows(path: Path, count: int) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f"{n},this is text number {n} of many\n" if n % 3 else f"{n},\n" for n in range(count))
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(
    reading: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("toolkit.apps.answers.REMEMBERED", 500)
    small = peak_of(Forgetful(reading), write_rows(tmp_path / "in-s.csv", 3_000), tmp_path / f"s.{form}")
    large = peak_of(Forgetful(reading), write_rows(tmp_path / "in-l.csv", 9_000), tmp_path / f"l.{form}")
    assert large < small + 1_000_000


def resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("rows", [50_000, pytest.param(1_000_000, marks=pytest.mark.scale)])
def test_many_rows_in_constant_memory(reading: Make, tmp_path: Path, rows: int) -> None:
    source, out = write_rows(tmp_path / "in.csv", rows), tmp_path / "o.jsonl"
    before, highest = resident(), 0

    class Measuring(Forgetful):
        def _read(self, text: str) -> Analysis:
            nonlocal highest
            if not text.endswith("00 of many"):
                return super()._read(text)
            highest = max(highest, resident())
            return super()._read(text)

    tally = run_batch(Measuring(reading), open_table(source), out, wish=WISH)
    assert tally.status == {"ok": rows - (rows + 2) // 3, "empty": (rows + 2) // 3}
    assert before <= highest < before + 100_000_000
    with open(out, "rb") as lines:
        assert all(json.loads(line)["row"] == number for number, line in enumerate(lines))


def test_a_long_stretch_of_empty_rows_does_not_pile_up(reading: Make, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n" + "\n" * 30_000 + "b\n", encoding="utf-8")
    held = 0

    class Slow(Fast):
        def analyze_many(self, texts: Iterable[str], **_: Any) -> Iterator[Analysis]:
            nonlocal held
            asked = list(texts)  # waits for all there is before it answers
            held += 1
            yield from map(self._read, asked)

    run_batch(Slow(reading), open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=WISH)
    assert held > 5
    assert [row["row"] for row in read_out(tmp_path / "o.jsonl")] == list(range(30_002))
