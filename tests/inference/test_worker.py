"""The worker process: nothing lost, nothing doubled, whoever dies; on a model that does what its texts say."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from convert.errors import GGUFError
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError, UsageError
from toolkit.inference import supervisor
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.fair_queue import FairQueue, Job
from toolkit.inference.protocol import (
    QueueFullError,
    Request,
    RequestTimeoutError,
    WorkerDiedError,
    decode,
    encode,
    error_from,
    error_message,
    request_from,
)
from toolkit.inference.request import Wish
from toolkit.inference.turns import TURN, Inbox, take_turns
from toolkit.inference.worker import WorkerModel

FAST = Wish(Lens.AUTHOR, "goemotions", "fast")
ENTRY = "stand_in:main"
HERE = str(Path(__file__).parent)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(supervisor, "ENTRY", ENTRY)


@pytest.fixture
def worker(stand_in: None) -> Iterator[WorkerModel]:  # noqa: ARG001
    with WorkerModel.load() as model:
        yield model


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# Protocol


@pytest.mark.parametrize("text", ["plain", "two\nlines\u2028", "\ud800", "\x00", '"}\n{"drop": 1}', "👩\u200d👧"])
def test_every_text_survives_the_journey(text: str) -> None:
    line = encode(Request(7, text, FAST).to_message())
    assert line.count(b"\n") == 1
    assert request_from(decode(line)) == Request(7, text, FAST)


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (ModelError("m", "h"), ModelError, "h"),
        (GGUFError("m", "h"), GGUFError, "h"),
        (WorkerDiedError("m", "h"), ModelError, "h"),
        (MemoryError(), ModelError, "Close other programs."),
        (ZeroDivisionError("m"), ModelError, "Run it again with --debug, and report the traceback."),
    ],
)
def test_errors_arrive_as_the_same_type(error: Exception, kind: type[Exception], hint: str) -> None:
    found = error_from(error_message(error))
    assert type(found) is kind
    assert found.hint == hint


def test_an_unknown_type_of_message_makes_no_object() -> None:
    found = error_from({"type": "os.system", "message": "m", "hint": ""})
    assert (type(found).__name__, str(found)) == ("EmotionLRMError", "m")


# Order and fairness


def job(caller: object, number: int = 0) -> Job:
    return Job(Request(number, "x", FAST), Future(), caller)


def test_callers_take_turns_however_much_one_has_asked_for() -> None:
    queue = FairQueue()
    for caller in ["greedy"] * 5 + ["modest"] * 2 + ["late"]:
        queue.put(job(caller))
    order = []
    while taken := queue.take():
        order.append(taken.caller)
    assert order == ["greedy", "modest", "late", "greedy", "modest", "greedy", "greedy", "greedy"]


def test_a_job_that_is_put_back_comes_before_the_others_of_its_caller() -> None:
    queue = FairQueue()
    first, second, third = (job("a", n) for n in range(3))
    for one in (first, second, third):
        queue.put(one)
    assert queue.take() is first
    queue.put_back(first)
    queue.remove(second)
    third.future.cancel()
    assert queue.take() is first
    assert queue.take() is None
    assert len(queue) == 0


class Enough(BaseException):
    """Ends a model that would serve for ever."""


class Recorder:
    """A model that notes the texts of each turn and never answers more than ``total`` of them."""

    name, lenses, noise_line = "recorder", (Lens.AUTHOR,), None

    def __init__(self, total: int) -> None:
        self.turns: list[tuple[str, int]] = []
        self.total = total

    def analyze_many(
        self,
        texts: Iterator[str | None],
        *,
        mode: str,
        **_: object,
    ) -> Iterator[Analysis]:
        count = 0
        for text in texts:
            if text is None:
                break
            count += 1
        self.turns.append((mode, count))
        self.total -= count
        if self.total <= 0:
            raise Enough
        yield from ()


def test_groups_take_turns_of_bounded_length() -> None:
    inbox, model = Inbox(), Recorder(3 * TURN)
    explain = Wish(Lens.AUTHOR, "goemotions", "explain")
    for number in range(2 * TURN):
        inbox.put(Request(number, "x", FAST))
    for number in range(TURN):
        inbox.put(Request(1000 + number, "x", explain))
    with pytest.raises(Enough):
        take_turns(model, inbox, lambda _: None)
    assert model.turns == [("fast", TURN), ("explain", TURN), ("fast", TURN)]


class Joined(Recorder):
    """While it works on its first text, a second one arrives."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(1)
        self.inbox = inbox
        self.seen: list[str | None] = []

    def analyze_many(self, texts: Iterator[str | None], **_: object) -> Iterator[Analysis]:
        self.seen += [next(texts), next(texts)]
        self.inbox.put(Request(2, "second", FAST))
        self.seen += [next(texts), next(texts)]
        raise Enough
        yield


def test_a_request_joins_the_turn_that_goes_on() -> None:
    inbox = Inbox()
    model = Joined(inbox)
    inbox.put(Request(1, "first", FAST))
    with pytest.raises(Enough):
        take_turns(model, inbox, lambda _: None)
    assert model.seen == ["first", None, "second", None]


def test_what_is_dropped_is_not_read() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put(Request(number, "x", FAST))
    assert inbox.drop(1)
    assert not inbox.drop(1)
    taken = [inbox.take(FAST) for _ in range(3)]
    assert [request.number for request in taken if request] == [0, 2]


# The process


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


def test_a_signal_to_the_whole_group_leaves_the_worker_to_its_parent(worker: WorkerModel) -> None:
    first = worker.pids
    for sent in (signal.SIGTERM, signal.SIGINT):
        os.kill(first[0], sent)
    assert worker.analyze("text").text == "text"
    assert worker.pids == first


# Deaths


def test_a_killed_worker_costs_nothing_but_a_retry(worker: WorkerModel) -> None:
    futures = [worker.submit(f"sleep 0.0{i % 3}") for i in range(200)]
    pid = worker.pids[0]
    eventually(lambda: sum(f.done() for f in futures) > 20)
    os.kill(pid, signal.SIGKILL)
    assert [f.result(60).text for f in futures] == [f"sleep 0.0{i % 3}" for i in range(200)]
    assert worker.pids[0] != pid


def test_a_worker_killed_while_it_waits_is_there_for_the_next(worker: WorkerModel) -> None:
    for _ in range(4):
        os.kill(worker.pids[0], signal.SIGKILL)
        assert worker.analyze("text", timeout=30).text == "text"


@pytest.mark.parametrize(("word", "cause"), [("abort", "SIGABRT: GGML_ASSERT"), ("kill", "SIGKILL")])
def test_a_text_that_ends_the_worker_twice_fails_and_the_rest_goes_on(
    worker: WorkerModel, word: str, cause: str
) -> None:
    texts = [f"text {i}" for i in range(40)]
    texts[11] = f"{word} now"
    outcomes = list(worker.outcomes(texts))
    assert [o.text for o in outcomes if isinstance(o, Analysis)] == [t for t in texts if t != f"{word} now"]
    failed = outcomes[11]
    assert isinstance(failed, WorkerDiedError)
    assert cause in str(failed)
    assert failed.hint


def test_a_worker_that_speaks_nonsense_is_replaced(worker: WorkerModel) -> None:
    first = worker.pids
    with pytest.raises(WorkerDiedError, match="twice"):
        worker.analyze("nonsense")
    assert worker.analyze("text").text == "text"
    assert worker.pids != first


def test_a_text_that_ends_the_worker_once_is_answered(worker: WorkerModel, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert worker.analyze(f"kill-once {mark}").emotion
    assert mark.exists()


def test_the_first_failure_ends_analyze_many(worker: WorkerModel) -> None:
    stream = worker.analyze_many(["a", "abort", "b"])
    assert next(stream).text == "a"
    with pytest.raises(WorkerDiedError):
        next(stream)


def test_a_text_that_fails_leaves_its_neighbours_alone(worker: WorkerModel) -> None:
    pid = worker.pids
    outcomes = list(worker.outcomes(["a", "raise", "b", "raise", "c", " "]))
    assert [o.text for o in outcomes if isinstance(o, Analysis)] == ["a", "b", "c"]
    assert [type(o) for o in outcomes if isinstance(o, Exception)] == [ModelError, ModelError, UsageError]
    assert worker.pids == pid


# Start and end


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("missing", ModelError, "There is no model 'missing'."),
        ("damaged", GGUFError, "damaged.gguf is no GGUF."),
        ("surprise", ModelError, "ZeroDivisionError: by zero"),
        ("stillborn", WorkerDiedError, "SIGABRT"),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_what_cannot_start_says_why(name: str, kind: type[Exception], said: str) -> None:
    threads = threading.active_count()
    with pytest.raises(kind, match=said) as failed:
        WorkerModel.load(name)
    assert type(failed.value) is kind
    eventually(lambda: threading.active_count() <= threads)


@pytest.mark.usefixtures("stand_in")
def test_what_cannot_start_again_fails_every_request(tmp_path: Path) -> None:
    with WorkerModel.load(f"once:{tmp_path / 'mark'}") as model:
        waiting = model.submit("kill")
        with pytest.raises(WorkerDiedError, match="SIGABRT"):
            waiting.result(60)
        with pytest.raises(WorkerDiedError, match="SIGABRT"):
            model.analyze("text")


@pytest.mark.usefixtures("stand_in")
def test_the_worker_is_told_what_to_load() -> None:
    with pytest.raises(ModelError, match=r"a\.gguf with 3 threads"):
        WorkerModel.load("echo", adapter=Path("a.gguf"), threads=3)
    with pytest.raises(TypeError, match="taxnomy"), WorkerModel.load() as model:
        model.submit("text", taxnomy="ekman")


@pytest.mark.usefixtures("stand_in")
def test_progress_is_heard() -> None:
    steps: list[tuple[int, int, str]] = []
    WorkerModel.load(progress=lambda *step: steps.append(step)).close()
    assert steps == [(1, 2, "loading")]


def test_closing_fails_what_waits_and_ends_the_process(worker: WorkerModel) -> None:
    pid = worker.pids[0]
    waiting = worker.submit("sleep 60")
    worker.close()
    worker.close()
    assert not alive(pid)
    with pytest.raises(ModelError, match="closed"):
        waiting.result(1)
    with pytest.raises(ModelError, match="closed"):
        worker.analyze("text")


@pytest.mark.usefixtures("stand_in")
def test_several_workers_share_the_queue_and_lose_nothing() -> None:
    with WorkerModel.load(workers=2, threads=1) as model:
        first = set(model.pids)
        assert len(first) == 2
        futures = [model.submit(f"sleep 0.01 {i}"[:10]) for i in range(100)]
        eventually(lambda: sum(f.done() for f in futures) > 10)
        os.kill(model.pids[0], signal.SIGKILL)
        served = {str(f.result(60).reasoning).split()[-1] for f in futures}
    assert len(served) >= 2


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from toolkit.inference import supervisor
supervisor.ENTRY = sys.argv[3]
from toolkit.inference.worker import WorkerModel
model = WorkerModel.load()
model.submit("sleep 600")
while not any(job.begun for job in list(model._pool.supervisors[0]._running.values())):
    time.sleep(0.01)  # once it works on the text, nothing but its parent's end can end it
if sys.argv[2] == "fork" and os.fork() == 0:  # a copy of this process holds the worker's input open
    sys.stdout.close()
    time.sleep(30)
    os._exit(0)
print(model.pids[0], flush=True)
time.sleep(0.3 if sys.argv[2] == "exit" else 600)
"""


@pytest.mark.parametrize(
    ("how", "end", "entry"),
    [
        ("", "SIGKILL", ENTRY),
        ("", "SIGTERM", ENTRY),
        ("", "SIGINT", ENTRY),
        ("exit", "", ENTRY),
        ("", "SIGKILL", "stand_in:without_prctl"),
        ("fork", "SIGKILL", ENTRY),
    ],
)
def test_the_worker_ends_with_its_parent(how: str, end: str, entry: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, HERE, how, entry], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        if end:
            parent.send_signal(signal.Signals[end])
        parent.wait(20)
    eventually(lambda: not alive(pid))


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


def test_both_lenses_are_compared(worker: WorkerModel) -> None:
    assert worker.compare("text").to_dict() == next(worker.compare_many(["text"])).to_dict()


def test_hundreds_of_requests_and_a_few_kills(worker: WorkerModel) -> None:
    answered: Counter[str] = Counter()
    lock = threading.Lock()

    def call(number: int) -> None:
        reading = worker.analyze(f"text {number}", mode=("fast", "explain")[number % 2])
        with lock:
            answered[reading.text] += 1
            due = sum(answered.values()) % 200 == 0
        if due:
            os.kill(worker.pids[0], signal.SIGKILL)

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(call, range(800)))
    assert answered == Counter(f"text {i}" for i in range(800))
