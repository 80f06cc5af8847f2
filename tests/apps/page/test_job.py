"""A file on the page: read in the background by what `batch` does, with the same result."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from convert.errors import FileError
from toolkit.apps.batch import run_batch, wish_of
from toolkit.apps.page import job as module
from toolkit.apps.page.job import FORMS, Job, StoppedError, Upload
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.tables import open_table
from toolkit.errors import ModelError
from toolkit.settings import Settings

ROWS = b'id,comment\n7,What a day!\n8,"  "\n9,raise now\n10,What a day!\n11,=cmd()\n'
FAST = Settings(model="a", mode="fast")


def started(shelf: Shelf, content: bytes = ROWS, settings: Settings = FAST, name: str = "my texts.csv") -> Job:
    upload = Upload(name, content)
    return Job(upload, open_table(upload.path), settings, shelf)


def finished(shelf: Shelf, content: bytes = ROWS, settings: Settings = FAST) -> Job:
    job = started(shelf, content, settings)
    job.wait(60)
    assert not job.running
    return job


def test_the_result_is_that_of_batch(shared_shelf: Shelf, tmp_path: Path) -> None:
    job = finished(shared_shelf)
    assert job.failure is None
    path = tmp_path / "in.csv"
    path.write_bytes(ROWS)
    for form in FORMS:
        output = tmp_path / f"out.{form}"
        with shared_shelf.borrowed(FAST) as model:
            run_batch(model, open_table(path), output, wish=wish_of(FAST))
        if form == "parquet":
            assert parquet.read_table(io.BytesIO(job.result(form))).equals(parquet.read_table(output))
        else:
            assert _without_reasoning(job.result(form)) == _without_reasoning(output.read_bytes())


def _without_reasoning(content: bytes) -> list[str]:
    """The stand-in's reasoning says which process read it and how many it read at once."""
    return re.sub(r"Read with \d+ by \d+\.", "", content.decode()).splitlines()


def test_every_row_is_there_with_its_status(shared_shelf: Shelf) -> None:
    job = finished(shared_shelf)
    rows = [json.loads(line) for line in job.result("jsonl").splitlines()]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("7", "ok"), ("8", "empty"), ("9", "error"), ("10", "ok"), ("11", "ok"),
    ]  # fmt: skip
    assert [row["id"] for row in job.records(2)] == ["7", "8"]
    cells = list(csv.DictReader(io.StringIO(job.result("csv").decode())))
    assert cells[4]["text"] == "'=cmd()"
    assert job.overview is not None
    assert dict(job.overview.tally.status) == {"ok": 3, "empty": 1, "error": 1}
    assert job.overview.views[0].texts == 3


def test_both_lenses(shared_shelf: Shelf) -> None:
    job = finished(shared_shelf, settings=Settings(model="a", lens="both", mode="fast"))
    first = job.records(1)[0]
    assert {"author", "reader", "divergence"} <= first.keys()
    assert job.overview is not None
    assert [view.lens for view in job.overview.views] == ["author", "reader"]


def test_a_model_that_does_not_load_is_the_job_s_failure(shared_shelf: Shelf) -> None:
    job = finished(shared_shelf, settings=Settings(model="missing"))
    assert isinstance(job.failure, ModelError)
    assert job.overview is None


def test_progress_is_told_and_a_run_can_be_stopped(shared_shelf: Shelf, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = started(shared_shelf, "\n".join([f"hold {gate}", *map(str, range(50))]).encode(), name="texts.txt")
    while not gate.exists():
        assert job.running
        time.sleep(0.01)
    share, line = job.look()
    assert share < 1
    assert line
    job.stop()
    gate.unlink()
    job.wait(60)
    assert isinstance(job.failure, StoppedError)
    assert job.overview is None


def test_a_run_that_nobody_looks_at_ends(shared_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ABANDONED", 0.0)
    job = finished(shared_shelf)
    assert isinstance(job.failure, StoppedError)


def test_a_run_that_somebody_looks_at_goes_on(shared_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ABANDONED", 3.0)
    job = started(shared_shelf, "\n".join(f"sleep 0.5 {n}" for n in range(1)).encode(), name="t.txt")
    while job.running:
        job.look()
        time.sleep(0.05)
    assert job.failure is None


def test_the_last_word_says_all_rows(shared_shelf: Shelf) -> None:
    job = finished(shared_shelf)
    assert job.look()[0] == 1.0
    assert job.look()[1].startswith("5/5 rows")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("comments.csv", "comments.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\über uns.tsv", "über uns.tsv"),
        (".hidden", "hidden"),
        ("a\x00b\n.csv", "a_b_.csv"),
        ("x" * 300 + ".csv.gz", "x" * 73 + ".csv.gz"),
        ("..", "texts"),
        ("", "texts"),
    ],
)
def test_an_upload_keeps_its_name_as_far_as_it_is_safe(name: str, kept: str) -> None:
    upload = Upload(name, b"x")
    assert upload.path.name == kept
    assert upload.path.parent == upload.folder
    assert upload.path.read_bytes() == b"x"


def test_an_upload_without_a_place_does_not_name_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FileError, match=r"No such file or folder: a\.csv$"):
        Upload("a.csv", b"x")


def test_an_upload_goes_away_with_whoever_held_it(shared_shelf: Shelf) -> None:
    job = finished(shared_shelf)
    folder = job.upload.folder
    assert folder.is_dir()
    del job
    gc.collect()
    assert not folder.exists()


def test_sentences_do_not_name_the_temporary_folder() -> None:
    upload = Upload("empty.csv", b"")
    assert upload.plain(f"{upload.path} is empty.") == "empty.csv is empty."
