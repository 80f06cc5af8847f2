"""A reasoning can be followed while it is written: from the engine, through the worker, to whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from toolkit import EmotionModel
from toolkit.contract.analysis import Analysis
from toolkit.errors import UsageError
from toolkit.inference import supervisor
from toolkit.inference.protocol import QueueFullError, RequestTimeoutError
from toolkit.inference.turns import LONG
from toolkit.inference.worker import WorkerModel

TEXT = "I feel disappointed and ignored, as if nobody cared."


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers obey their texts."""
    monkeypatch.setattr(supervisor, "ENTRY", "stand_in:main")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def worker(entry: None) -> Iterator[WorkerModel]:  # noqa: ARG001
    with WorkerModel.load() as model:
        yield model


def test_a_stream_grows_and_ends_with_the_whole(worker: WorkerModel) -> None:
    seen = list(worker.stream("text"))
    assert [reading.reasoning for reading in seen[:3]] == ["", "Read", "Read with"]
    assert len(seen) == 4
    assert seen[-1] == worker.analyze("text")
    assert {reading.text for reading in seen} == {"text"}


def test_a_long_text_is_followed_too(worker: WorkerModel) -> None:
    text = " ".join(["0"] * LONG)
    assert [reading.reasoning for reading in worker.stream(text)] == ["Read", f"Read in {LONG - 1} slices."]


def test_a_label_alone_comes_at_once(worker: WorkerModel) -> None:
    assert [reading.mode for reading in worker.stream("text", mode="fast")] == ["fast"]


def test_only_who_asked_hears_of_what_is_not_finished(worker: WorkerModel) -> None:
    others = [worker.submit(f"other {n}") for n in range(12)]
    assert [reading.text for reading in worker.stream("mine")] == ["mine"] * 4
    assert [future.result().text for future in others] == [f"other {n}" for n in range(12)]


def test_a_stream_fails_as_a_request_does(worker: WorkerModel) -> None:
    with pytest.raises(UsageError, match="empty"):
        worker.stream(" ")
    with pytest.raises(UsageError, match="no mode"):
        worker.stream("text", mode="slow")
    with pytest.raises(RequestTimeoutError):
        list(worker.stream("sleep 3", timeout=0.2))
    assert list(worker.stream("text"))[-1].reasoning


def test_a_stream_that_is_closed_gives_its_place_back(entry: None) -> None:  # noqa: ARG001
    with WorkerModel.load(capacity=1) as worker:
        stream = worker.stream("slowly")
        worker.analyze("not asked for yet")
        next(stream)
        with pytest.raises(QueueFullError):
            worker.submit("text")
        stream.close()
        assert worker.analyze("text").text == "text"


def test_a_worker_that_dies_begins_again(worker: WorkerModel, tmp_path: Path) -> None:
    seen = list(worker.stream(f"kill-once {tmp_path / 'mark'}"))
    assert seen[0].reasoning == ""
    assert str(worker.pids[0]) in (seen[-1].reasoning or "")


def test_the_engine_tells_what_it_writes(default_model: EmotionModel) -> None:
    told: dict[int, list[Analysis]] = {0: [], 1: []}

    def watch(number: int, so_far: Callable[[], Analysis]) -> None:
        told[number].append(so_far())

    whole = list(default_model.analyze_many([f"  {TEXT}\n", "Thank you!"], watch=watch))
    for number, text in enumerate((TEXT, "Thank you!")):
        written = [reading.reasoning or "" for reading in told[number]]
        assert len(written) > 5
        assert all(later.startswith(earlier) for earlier, later in pairwise(written))
        assert (whole[number].reasoning or "").startswith(written[-1][:-1].rstrip())
        assert {reading.text for reading in told[number]} == {text}
        assert {reading.emotion for reading in told[number]} == {whole[number].emotion}
        assert told[number][0].scores == whole[number].scores
    assert [reading.text for reading in whole] == [f"  {TEXT}\n", "Thank you!"]
