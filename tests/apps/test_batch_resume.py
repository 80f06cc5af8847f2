"""A batch that is killed at any moment goes on from there: no row is lost, none comes twice."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from toolkit.apps.journal import Journal

ROWS = 3_000

# Slow enough to be killed in the middle, with checkpoints close enough together to be met while they are written.
FAST = """
import sys, time
from pathlib import Path
from toolkit.apps import journal
from toolkit.apps.batch import run_batch
from toolkit.apps.tables import open_table
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.inference.request import Wish

journal.CHECKPOINT_EVERY = 0.005

class Fast:
    name = "fast"
    def analyze_many(self, texts, *, lens, taxonomy, mode):
        for text in texts:
            time.sleep(0.0003)
            yield Analysis(text, lens, taxonomy, mode, "joy", "joy", 0.9, False, ("joy",), {"joy": 1.0}, 1.0, 0.0,
                           None, (), "fast")
"""

RUN = """
wish = Wish(Lens.AUTHOR, "goemotions", "fast")
try:
    print("ready", flush=True)
    run_batch(Fast(), open_table(Path(sys.argv[1])), Path(sys.argv[2]), wish=wish, resume=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


# The command itself, fed by a pipe.
PIPED = """
from contextlib import nullcontext
from toolkit.apps import batch
from toolkit.cli import main

batch.open_workers = lambda *_: nullcontext(Fast())
sys.exit(main(["batch", "-", "-o", sys.argv[1], "--mode", "fast", "--resume"]))
"""

# Kills itself while it makes the output of the finished rows: when half is converted, or at what it asks of the system.
DIES = """
import os, signal
from toolkit.apps import results

def die(event, args, moment=sys.argv[3]):
    if event == moment and ".partial" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)

def halved(partial, whole=results.records):
    for record in whole(partial):
        if record["row"] == 1000:
            sys.audit("half", partial)
        yield record

sys.addaudithook(die)
results.records = halved
"""


def start(source: Path, out: Path, *more: str, script: str = FAST + RUN) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", script, str(source), str(out), *more], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def write_input(path: Path) -> list[str]:
    texts = [f"text {n} “é”" if n % 5 else "" for n in range(ROWS)]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return texts


def rows_kept(out: Path) -> int:
    partial = out.with_name(out.name + ".partial")
    return partial.read_bytes().count(b"\n") if partial.exists() else 0


def end(source: Path, out: Path, chance: random.Random, kill: int) -> int:
    """Start a run and end it once it has written a random number of rows, or none; how it ended."""
    with start(source, out) as process:
        wanted = rows_kept(out) + chance.randrange(-30, 150)
        deadline = time.monotonic() + 60
        while rows_kept(out) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(chance.uniform(0, 0.003))
        process.send_signal(signal.SIGKILL if kill % 4 else signal.SIGINT)
        return process.wait(60)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path, form: str) -> None:
    chance = random.Random(7)
    source, out = tmp_path / "in.txt", tmp_path / f"o.{form}"
    texts = write_input(source)
    ended = [end(source, out, chance, kill) for kill in range(20 if form == "jsonl" else 5)]
    assert sum(code in (-signal.SIGKILL, 130) for code in ended) >= len(ended) - 2, ended
    if rows_kept(out):  # and the file system lost what was not flushed: half a line and a block of zeros
        with open(out.with_name(out.name + ".partial"), "ab") as partial:
            partial.write(b'{"row": 1, "sta' + b"\0" * 512)
    with start(source, out) as process:
        assert process.wait(120) == 0
    if form == "jsonl":
        rows = [json.loads(line) for line in out.read_bytes().splitlines()]
        assert [(row["row"], row["text"]) for row in rows] == list(enumerate(texts))
    elif form == "parquet":
        found = parquet.read_table(out, columns=["row", "text"]).to_pylist()
        assert [(row["row"], row["text"]) for row in found] == list(enumerate(texts))
    else:
        lines = out.read_text(encoding="utf-8").splitlines()[1:]
        assert [line.split(",")[1] for line in lines] == [str(n) for n in range(ROWS)]
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", out.name}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_while_the_output_is_made_it_makes_it_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "o.csv"
    texts = write_input(source)
    for moment in ("half", "os.rename", "os.remove"):  # the last comes when the output is there, but not all is tidy
        with start(source, out, moment, script=FAST + DIES + RUN) as process:
            assert process.wait(60) == -signal.SIGKILL
        assert out.exists() == (moment == "os.remove")
        assert rows_kept(out) == ROWS
    with start(source, out) as process:
        assert process.wait(60) == 0
    with open(out, encoding="utf-8", newline="") as file:
        assert [(int(row["row"]), row["text"]) for row in csv.DictReader(file)] == list(enumerate(texts))
    assert not [path for path in tmp_path.glob("o.csv*") if path != out]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_while_it_reads_standard_input_it_goes_on_and_leaves_no_copy(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    texts = [f"text {n}" for n in range(ROWS)]
    fed = "\n".join(texts).encode()
    command = [sys.executable, "-c", FAST + PIPED, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(fed)
        process.stdin.close()
        while rows_kept(out) < 100:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    assert rows_kept(out) < ROWS
    assert (tmp_path / ".o.jsonl.standard input").read_bytes() == fed
    done = subprocess.run(command, input=fed, capture_output=True)
    assert (done.returncode, b"Resuming after" in done.stderr) == (0, True), done.stderr
    assert [json.loads(line)["text"] for line in out.read_bytes().splitlines()] == texts
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


def record(number: int) -> dict[str, object]:
    return {"row": number, "status": "ok", "emotion": "joy", "error": None}


def line(number: int) -> bytes:
    return json.dumps(record(number)).encode() + b"\n"


@pytest.mark.parametrize(
    "tail",
    [b"", b'{"row": 5, "st', b"\0" * 100 + b"\n", line(7), line(4), b"[]\n", b"{}\n" + line(5), b"\xff\n"],
)
def test_what_is_not_whole_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    journal = Journal(tmp_path / "o.jsonl", {"input": "x"}, resume=False)
    for number in range(3):
        journal.add(line(number), record(number))
    journal.checkpoint()
    for number in (3, 4):
        journal.add(line(number), record(number))
    journal.close()
    with open(journal.partial, "ab") as partial:
        partial.write(tail)
    with open(journal.path, "ab") as notes:
        notes.write(b'{"bytes": 99')  # a note that was being written
    again = Journal(tmp_path / "o.jsonl", {"input": "x"}, resume=True)
    again.close()
    assert again.tally.rows == 5
    assert again.tally.labels == {"joy": 5}
    assert journal.partial.read_bytes() == b"".join(map(line, range(5)))
