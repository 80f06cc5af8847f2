"""The worker process: the words of a model, bounds and time limits; on a model that does what its texts say."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.inference.processes import eventually
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError, UsageError
from toolkit.inference import supervisor
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.protocol import QueueFullError, RequestTimeoutError
from toolkit.inference.worker import WorkerModel


def test_the_words_of_the_model(worker: WorkerModel) -> None:
    assert (worker.name, worker.lenses) == ("stand-in", (Lens.AUTHOR, Lens.READER))
    reading = worker.analyze("hello \ud800\n", lens="author", taxonomy="ekman", mode="fast")
    assert (reading.text, reading.taxonomy, reading.mode) == ("hello \ud800\n", "ekman", "fast")
    assert type(reading.emotions) is tuple
    assert list(reading.scores) == list(worker.analyze("x", taxonomy="ekman").scores)
    texts = [f"text {i}" for i in range(300)]
    assert [r.text for r in worker.analyze_many(iter(texts))] == texts


def test_wrong_usage_is_refused_at_once(worker: WorkerModel) -> None:
    for wrong in ({"lens": "nobody"}, {"taxonomy": "empathetic"}, {"mode": "slow"}):
        with pytest.raises(UsageError):
            worker.submit("text", **wrong)
        with pytest.raises(UsageError):
            worker.analyze_many(["text"], **wrong)
    with pytest.raises(UsageError, match="empty"):
        worker.analyze(" \n")
    assert worker.analyze("fine").text == "fine"


def test_many_texts_are_read_lazily(worker: WorkerModel) -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for taken in range(1, 100_000):  # noqa: B007
            yield "text"

    stream = worker.analyze_many(source())
    for _ in range(10):
        next(stream)
    assert taken < 400
    stream.close()  # type: ignore[attr-defined]
    assert worker.analyze("afterwards").text == "afterwards"


def together(reading: Analysis) -> int:
    assert reading.reasoning is not None
    return int(reading.reasoning.split()[2])


def test_requests_of_many_callers_share_batches(worker: WorkerModel) -> None:
    blocked = worker.submit("sleep 0.5")
    with ThreadPoolExecutor(16) as callers:
        readings = list(callers.map(worker.analyze, (f"text {i}" for i in range(64))))
    assert [r.text for r in readings] == [f"text {i}" for i in range(64)]
    assert max(map(together, readings)) > 4
    assert blocked.result()


def test_mixed_wishes_are_answered_each_in_its_own_way(worker: WorkerModel) -> None:
    wishes = [
        {"lens": lens, "taxonomy": taxonomy, "mode": mode}
        for lens, taxonomy in (("author", "ekman"), ("author", "goemotions"), ("reader", "shared10"))
        for mode in ("fast", "explain")
    ]
    futures = [(wish, worker.submit(f"text {i}", **wish)) for i in range(50) for wish in wishes]
    for wish, future in futures:
        reading = future.result(30)
        assert {"lens": reading.lens, "taxonomy": reading.taxonomy, "mode": reading.mode} == wish


def test_what_native_code_prints_does_not_reach_the_protocol(worker: WorkerModel) -> None:
    assert worker.analyze("print something").text == "print something"


def test_a_greedy_caller_does_not_starve_a_modest_one(worker: WorkerModel) -> None:
    greedy = [worker.submit("sleep 0.01", caller="greedy") for _ in range(800)]
    worker.submit("text", caller="modest").result(30)
    waiting = sum(not future.done() for future in greedy)
    for future in greedy:
        future.cancel()
    assert waiting > 400


# Bounds


def test_a_full_queue_says_so(stand_in: None) -> None:  # noqa: ARG001
    with WorkerModel.load(capacity=3) as model:
        held = [model.submit("sleep 0.3") for _ in range(3)]
        with pytest.raises(QueueFullError, match="3 texts") as full:
            model.submit("text")
        assert full.value.hint
        assert [r.text for r in model.analyze_many(["a", "b", "c", "d", "e"])] == list("abcde")
        wait(held)
        assert model.analyze("text")


def test_a_cancelled_request_makes_room_and_is_not_read(worker: WorkerModel, tmp_path: Path) -> None:
    blocking = worker.submit("sleep 0.5")
    eventually(lambda: any(job.begun for job in list(worker._pool.supervisors[0]._running.values())))
    doomed = worker.submit(f"kill-once {tmp_path / 'mark'}")
    pid = worker.pids
    assert doomed.cancel()
    done, _ = wait([doomed, blocking], timeout=20)
    assert len(done) == 2
    with pytest.raises(CancelledError):
        doomed.result()
    worker.analyze("afterwards")
    assert worker.pids == pid
    assert not (tmp_path / "mark").exists()


def test_a_request_that_takes_too_long_fails_alone(worker: WorkerModel) -> None:
    slow, other = worker.submit("sleep 1", timeout=0.2), worker.submit("text")
    with pytest.raises(RequestTimeoutError, match=r"0\.2 s"):
        slow.result(10)
    assert other.result(10).text == "text"
    assert worker.analyze("text", timeout=10).text == "text"


def test_a_worker_that_is_stuck_in_an_abandoned_text_is_replaced(
    worker: WorkerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STALL", 0.3)
    monkeypatch.setattr("toolkit.inference.pool.LOOK_EVERY", 0.1)
    monkeypatch.setattr(supervisor, "SILENT_LOOKS", 1000)  # here silence means no answers, not no signs of life
    first = worker.pids
    with pytest.raises(RequestTimeoutError):
        worker.analyze("sleep 600", timeout=0.2)
    assert worker.analyze("text", timeout=30).text == "text"
    assert worker.pids != first


def test_a_worker_that_hangs_counts_as_dead(worker: WorkerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.inference.pool.LOOK_EVERY", 0.5)
    first = worker.pids
    futures = [worker.submit(f"sleep 0.0{i % 9}") for i in range(100)]
    eventually(lambda: sum(f.done() for f in futures) > 5)
    os.kill(first[0], signal.SIGSTOP)
    assert [f.result(120).text for f in futures] == [f"sleep 0.0{i % 9}" for i in range(100)]
    assert worker.pids != first


def test_a_worker_that_hangs_while_it_waits_is_there_for_the_next(
    worker: WorkerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.inference.pool.LOOK_EVERY", 0.5)
    os.kill(worker.pids[0], signal.SIGSTOP)
    assert worker.analyze("text").text == "text"


def test_a_worker_that_is_slow_on_honest_work_is_left_alone(
    worker: WorkerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.inference.pool.LOOK_EVERY", 0.5)
    monkeypatch.setattr(supervisor, "STALL", 0.1)
    first = worker.pids
    assert worker.analyze("sleep 5").text == "sleep 5"  # longer than a hung worker is left alone
    assert worker.pids == first


def test_who_waits_behind_a_long_text_fails_in_time(worker: WorkerModel) -> None:
    long = worker.submit("sleep 600", caller="long")
    eventually(lambda: any(job.begun for job in list(worker._pool.supervisors[0]._running.values())))
    with pytest.raises(RequestTimeoutError):
        worker.submit("text", timeout=0.2, caller="other").result(30)
    assert not long.done()
    long.cancel()


def test_a_long_text_is_read_between_the_others(worker: WorkerModel) -> None:
    long = worker.submit("0.02" + " word" * 2000, caller="long")
    short = [worker.submit(f"text {i}") for i in range(20)]
    assert [future.result(30).text for future in short] == [f"text {i}" for i in range(20)]
    assert not long.done()
    long.cancel()


def test_a_long_text_that_nobody_waits_for_is_given_up(worker: WorkerModel) -> None:
    pid = worker.pids
    endless = worker.submit("0.02" + " word" * 100_000)
    assert worker.analyze("text").text == "text"
    assert endless.cancel()
    assert worker.analyze("0.0001" + " word" * 2000).reasoning == "Read in 2000 slices."
    assert worker.pids == pid


def test_a_signal_to_the_whole_group_leaves_the_worker_to_its_parent(worker: WorkerModel) -> None:
    first = worker.pids
    for sent in (signal.SIGTERM, signal.SIGINT):
        os.kill(first[0], sent)
    assert worker.analyze("text").text == "text"
    assert worker.pids == first


# Async


@pytest.mark.usefixtures("stand_in")
def test_the_async_twin_merges_what_is_awaited_together() -> None:
    async def use() -> None:
        async with await AsyncEmotionModel.load(capacity=40) as model:
            blocked = asyncio.create_task(model.analyze("sleep 0.4"))
            await asyncio.sleep(0.1)
            readings = await asyncio.gather(*(model.analyze(f"text {i}") for i in range(30)))
            assert [r.text for r in readings] == [f"text {i}" for i in range(30)]
            assert max(map(together, readings)) > 4
            await blocked
            texts = [f"text {i}" for i in range(200)]
            assert [r.text async for r in model.analyze_many(texts, mode="fast")] == texts
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(model.analyze("sleep 5"), 0.2)
            with pytest.raises(UsageError):
                model.analyze_many([], mode="slow")

    asyncio.run(use())


@pytest.mark.usefixtures("stand_in")
def test_the_async_twin_reads_an_async_source() -> None:
    async def source() -> object:
        for i in range(5):
            await asyncio.sleep(0)
            yield f"text {i}"

    async def use() -> list[str]:
        async with await AsyncEmotionModel.load() as model:
            return [r.text async for r in model.analyze_many(source())]

    assert asyncio.run(use()) == [f"text {i}" for i in range(5)]


@pytest.mark.usefixtures("stand_in")
def test_the_async_twin_gives_failures_in_their_place_and_compares() -> None:
    async def use() -> None:
        async with await AsyncEmotionModel.load() as model:
            found = [o async for o in model.outcomes(["a", " ", "raise", "b"], mode="fast")]
            assert [getattr(o, "text", type(o)) for o in found] == ["a", UsageError, ModelError, "b"]
            compared = await model.compare("text", taxonomy="shared10")
            assert (compared.author.lens, compared.reader.lens) == (Lens.AUTHOR, Lens.READER)
            assert compared.divergence.noise_line == 0.1
            with pytest.raises(UsageError):
                await model.compare("text", taxonomy="ekman")

    asyncio.run(use())


@pytest.mark.usefixtures("stand_in")
def test_a_comparison_that_fails_leaves_nothing_behind() -> None:
    async def use() -> None:
        async with await AsyncEmotionModel.load(capacity=1) as model:
            with pytest.raises(QueueFullError):  # there is room for the author's reading only
                await model.compare("sleep 1")
            model.worker.submit("text").cancel()

    asyncio.run(use())


def test_both_lenses_are_compared(worker: WorkerModel) -> None:
    assert worker.compare("text").to_dict() == next(worker.compare_many(["text"])).to_dict()
