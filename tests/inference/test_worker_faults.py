"""What must leave nobody waiting for ever: supervision that fails, workers that are gone or stuck, bad arguments."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.inference.processes import alive, children, eventually, in_time
from toolkit.contract.analysis import Analysis
from toolkit.errors import ModelError, UsageError
from toolkit.inference import pool, supervisor
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.protocol import WorkerDiedError
from toolkit.inference.worker import WorkerModel

pytestmark = pytest.mark.usefixtures("stand_in")

# Supervision that fails


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_a_search_path_may_hold_what_importing_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("folder"), 3])
    with in_time(WorkerModel.load) as model:
        assert model.analyze("text").text == "text"


def test_numbers_may_be_of_numpy() -> None:
    with pytest.raises(ModelError, match="with 2 threads"):
        in_time(lambda: WorkerModel.load("echo", threads=np.int64(2), gpu_layers=np.int32(0)))  # type: ignore[arg-type]


def test_no_place_for_a_temporary_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", raising(FileNotFoundError(2, "No usable temporary directory")))
    with pytest.raises(WorkerDiedError, match="No usable temporary directory") as failed:
        in_time(WorkerModel.load)
    assert "TMPDIR" in failed.value.hint


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("broken", ["python_command", "encode"])  # before there is a process, and when it is fed
def test_what_nobody_expected_is_told_with_its_cause(
    broken: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, processes = threading.active_count(), children()
    monkeypatch.setattr(supervisor, broken, raising(ZeroDivisionError("odd")))
    with pytest.raises(ModelError, match="ZeroDivisionError: odd") as failed:
        in_time(lambda: WorkerModel.load(workers=workers))
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: children() == processes)


def test_what_nobody_expected_later_fails_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerModel.load() as model:
        monkeypatch.setattr(supervisor, "python_command", raising(ZeroDivisionError("odd")))
        with pytest.raises(ModelError, match="ZeroDivisionError: odd"):
            model.submit("kill").result(60)
        with pytest.raises(ModelError, match="ZeroDivisionError: odd"):
            model.analyze("text")


def test_an_answer_that_makes_no_sense_is_no_answer(worker: WorkerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis_from, first = supervisor.analysis_from, worker.pids

    def once(*_: Any) -> Analysis:
        monkeypatch.setattr(supervisor, "analysis_from", analysis_from)
        raise TypeError("no such field")

    monkeypatch.setattr(supervisor, "analysis_from", once)
    assert worker.submit("text").result(60).text == "text"
    assert worker.pids != first


def test_a_failure_within_the_worker_comes_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(ModelError, match="ZeroDivisionError: by zero") as failed:
        WorkerModel.load("surprise")
    shown = "".join(traceback.format_exception(failed.value))  # as --debug does
    for place in (shown, caplog.text):
        assert 'raise ZeroDivisionError("by zero")' in place


# Workers that are gone


def let_none_start_again(model: WorkerModel) -> None:
    for one in model._pool.supervisors:
        one._wanted["model"] = "missing"


def test_a_worker_that_is_gone_for_good_leaves_its_texts_to_the_others(tmp_path: Path) -> None:
    with WorkerModel.load(workers=2, threads=1) as model:
        let_none_start_again(model)
        texts = [f"kill-once {tmp_path / 'mark'}", *(f"text {i}" for i in range(100))]
        futures = [model.submit(text) for text in texts]
        assert [future.result(60).text for future in futures] == texts
        assert len(model.pids) == 1
        assert model.ready


def test_a_text_that_ends_a_second_worker_fails_and_the_cause_is_kept() -> None:
    with WorkerModel.load(workers=2, threads=1) as model:
        let_none_start_again(model)
        with pytest.raises(WorkerDiedError, match="twice"):
            model.submit("kill").result(60)
        with pytest.raises(ModelError, match="There is no model 'missing'"):
            model.submit("text").result(60)
        assert (model.pids, model.ready) == ([], False)


# Workers that are stuck


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and a half seconds without a step are too many."""
    monkeypatch.setattr(pool, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(supervisor, "SILENT_LOOKS", 1000)
    monkeypatch.setattr(supervisor, "STUCK_LOOKS", 25)


@pytest.mark.usefixtures("hasty")
def test_a_worker_that_is_stuck_in_native_code_is_replaced() -> None:
    with WorkerModel.load() as model:
        first = model.pids
        other = model.submit("text")
        with pytest.raises(WorkerDiedError, match="stuck in native code"):
            model.submit("sleep 600").result(60)
        assert other.result(60).text == "text"
        assert model.pids != first


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("texts", [["0.5 " + f"{'y' * 900} " * 9], ["sleep 1"] * 4])  # more than four seconds
def test_a_worker_that_is_slow_but_gets_on_is_left_alone(texts: list[str]) -> None:
    with WorkerModel.load() as model:
        first = model.pids
        assert [model.analyze(text).text for text in texts] == texts
        assert model.pids == first


@pytest.mark.usefixtures("hasty")
def test_a_worker_that_has_nothing_to_do_is_not_stuck() -> None:
    with WorkerModel.load() as model:
        first = model.pids
        threading.Event().wait(4)
        assert model.analyze("text").text == "text"
        assert model.pids == first


# Long texts


def test_many_long_texts_keep_nobody_waiting(worker: WorkerModel) -> None:
    held = [worker.submit("0.02" + " word" * 2000, caller="long") for _ in range(100)]
    assert worker.analyze("text", timeout=20).text == "text"
    assert not any(future.done() for future in held)
    for future in held:
        future.cancel()


def test_callers_of_long_texts_take_turns(worker: WorkerModel) -> None:
    order: list[str] = []

    def ask(caller: str) -> Future[Analysis]:
        future = worker.submit("0.0003" + " word" * 2000, caller=caller)
        future.add_done_callback(lambda _: order.append(caller))
        return future

    futures = [ask("greedy") for _ in range(3)]
    eventually(lambda: any(job.begun for job in list(worker._pool.supervisors[0]._running.values())))
    futures.append(ask("modest"))
    for future in futures:
        future.result(60)
    eventually(lambda: len(order) == 4)
    assert order == ["greedy", "greedy", "modest", "greedy"]


# Bad arguments


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": "2"}, {"capacity": 0}, {"capacity": 1.5}, {"threads": 0}, {"gpu_layers": "all"}],
)
def test_a_number_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))) as refused:
        in_time(lambda: WorkerModel.load(**wrong))
    assert refused.value.hint
    with pytest.raises(UsageError, match=next(iter(wrong))):
        in_time(lambda: asyncio.run(AsyncEmotionModel.load(**wrong)))


@pytest.mark.parametrize("timeout", ["5", float("nan"), [1]])
def test_a_time_limit_that_is_no_number_is_refused(worker: WorkerModel, timeout: Any) -> None:
    twin = AsyncEmotionModel(worker)
    for act in (
        lambda: worker.submit("text", timeout=timeout),
        lambda: worker.analyze("text", timeout=timeout),
        lambda: worker.analyze_many(["text"], timeout=timeout),
        lambda: worker.outcomes(["text"], timeout=timeout),
        lambda: worker.stream("text", timeout=timeout),
        lambda: worker.compare("text", timeout=timeout),
        lambda: worker.compare_many(["text"], timeout=timeout),
        lambda: asyncio.run(twin.analyze("text", timeout=timeout)),
        lambda: twin.outcomes(["text"], timeout=timeout),
        lambda: twin.outcomes(["text"], patience=timeout),
        lambda: twin.compare_many(["text"], timeout=timeout),
    ):
        with pytest.raises(UsageError, match="timeout is no number"):
            in_time(act)  # type: ignore[arg-type]
    assert worker.analyze("text", timeout=np.float32(20)).text == "text"  # type: ignore[arg-type]


def test_a_caller_without_a_hash_is_refused(worker: WorkerModel) -> None:
    with pytest.raises(UsageError, match="unhashable"):
        worker.submit("text", caller=["me"])  # type: ignore[arg-type]


def test_one_text_is_not_read_letter_by_letter(worker: WorkerModel) -> None:
    twin = AsyncEmotionModel(worker)
    for many in (
        worker.analyze_many, worker.outcomes, worker.compare_many,
        twin.analyze_many, twin.outcomes, twin.compare_many,
    ):  # fmt: skip
        with pytest.raises(UsageError, match="One text"):
            many("text")  # type: ignore[operator]


# A load that is given up


def test_a_cancelled_load_leaves_no_worker() -> None:
    before = children()

    async def give_up() -> int:
        loading = asyncio.create_task(AsyncEmotionModel.load("sleepy"))
        while not (started := children() - before):
            await asyncio.sleep(0.01)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        return started.pop()

    pid = in_time(lambda: asyncio.run(give_up()))
    eventually(lambda: not alive(pid))
    eventually(lambda: children() <= before)
