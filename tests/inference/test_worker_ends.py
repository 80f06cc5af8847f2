"""Starts, deaths and ends of the worker process: nothing lost, nothing doubled, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convert.errors import GGUFError
from tests.inference.processes import ENTRY, HERE, alive, eventually
from toolkit.contract.analysis import Analysis
from toolkit.errors import ModelError, UsageError
from toolkit.inference import worker as worker_module
from toolkit.inference.protocol import WorkerDiedError
from toolkit.inference.worker import WorkerModel

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
    with pytest.raises(ModelError, match="None with None threads"):
        WorkerModel.load("echo")
    with pytest.raises(TypeError, match="taxnomy"), WorkerModel.load() as model:
        model.submit("text", taxnomy="ekman")


@pytest.mark.usefixtures("stand_in")
def test_workers_share_the_processors_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "free_threads", lambda: 6)
    with pytest.raises(ModelError, match="with 3 threads"):
        WorkerModel.load("echo", workers=2)


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
from tests.inference.processes import ENTRY, HERE, alive, eventually
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
