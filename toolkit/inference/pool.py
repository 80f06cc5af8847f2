"""Worker processes behind one queue, driven by one thread: what any number of threads may call."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import math
import operator
import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from numbers import Real
from typing import Any

from toolkit.contract.analysis import Analysis
from toolkit.errors import ModelError, UsageError
from toolkit.inference.fair_queue import FairQueue, Job
from toolkit.inference.protocol import Request, RequestTimeoutError
from toolkit.inference.request import Wish, refuse_empty
from toolkit.inference.supervisor import Failure, Supervisor, fail, supervision_failed

LOOK_EVERY = 5.0  # seconds


class Pool:
    """``workers`` processes that load ``wanted``, and the requests that wait for one of them.

    Attributes:
        room: acquire it before each :meth:`enqueue`; an answer, whatever it is, releases it.
    """

    def __init__(self, wanted: dict[str, Any], workers: int, capacity: int) -> None:
        self.capacity, self.room = capacity, threading.Semaphore(capacity)
        self._numbers, self._queue = itertools.count(), FairQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended: Failure | None = None
        self._loop = asyncio.new_event_loop()
        self.supervisors = [Supervisor(wanted, self._queue, self._events.put) for _ in range(workers)]
        self._thread = threading.Thread(target=self._work, name="emotion-lrm workers", daemon=True)

    def start(self, progress: Callable[[int, int, str], None] | None) -> dict[str, Any]:
        """Start the workers, wait until each is ready, and return what they say of their model.

        Raises:
            EmotionLRMError, ConvertError: as loading in this process would.
        """
        self._thread.start()
        atexit.register(self.close)
        ready = 0
        event: dict[str, Any] = {}
        while ready < len(self.supervisors):
            event = self._events.get()
            if "failed" in event:
                raise event["failed"]
            ready += "ready" in event
            if "progress" in event and progress is not None:
                progress(*event["progress"])
        told: dict[str, Any] = event["ready"]
        return told

    def close(self) -> None:
        """End the workers; requests without an answer fail. Safe to call twice."""
        atexit.unregister(self.close)
        self._post(self._let_go)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def enqueue(
        self, text: str, wish: Wish, timeout: float | None, caller: Hashable,
        told: Callable[[Analysis], object] | None = None,
    ) -> Future[Analysis]:  # fmt: skip
        """Hand a request, for which there is room, to the thread of the workers.

        Args:
            told: hears there what the analysis is so far; must not wait or fail.
        """
        future: Future[Analysis] = Future()
        job = Job(Request(next(self._numbers), text, wish, told is not None), future, caller, told=told)
        future.add_done_callback(lambda _: self._forget(job))
        refusal: Failure | None = None
        try:
            refuse_empty(text)
        except UsageError as error:
            refusal = error
        with self._lock:
            if self._ended is not None:
                refusal = type(self._ended)(str(self._ended), self._ended.hint)
            elif refusal is None:
                self._post(self._admit, job, timeout)
        if refusal is not None:
            fail(future, refusal)
        return future

    def _forget(self, job: Job) -> None:
        """In whatever thread a future got its result: make room, and take the request out of the way."""
        self.room.release()
        if job.future.cancelled():
            job.future.set_running_or_notify_cancel()  # tells concurrent.futures.wait
        elif job.future.exception() is None and job.timer is None:
            return
        self._post(self._withdraw, job)

    def _end(self, cause: Failure) -> None:
        """From now on nothing is accepted; the first cause stays."""
        with self._lock:
            self._ended = self._ended or cause

    def _post(self, act: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all that was to be done is
            self._loop.call_soon_threadsafe(act, *args)

    # In the thread of the workers

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._supervise())
        finally:
            self._loop.close()

    async def _supervise(self) -> None:
        looking = asyncio.create_task(self._look_after_workers())
        try:
            failures = await asyncio.gather(*map(self._keep, self.supervisors))
            self._end(next((failure for failure in failures if failure), _closed()))
        except BaseException as error:
            self._end(supervision_failed(error))
        finally:
            looking.cancel()
            for supervisor in self.supervisors:
                supervisor.close()
            await asyncio.sleep(0)  # what was handed over before the end is in the queue now
            assert self._ended is not None
            for job in (*self._queue.drain(), *(job for one in self.supervisors for job in one.drain())):
                fail(job.future, self._ended)
            self._events.put({"failed": self._ended})  # whoever still waits for the start waits for nothing

    async def _keep(self, supervisor: Supervisor) -> Failure | None:
        """Run a supervisor to its end, and leave what it could not finish to the others."""
        failure = await supervisor.run()
        for job in supervisor.drain():
            self._queue.put_back(job)
        self._wake()
        return failure

    def _wake(self) -> None:
        for supervisor in self.supervisors:
            supervisor.wake()

    async def _look_after_workers(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for supervisor in self.supervisors:
                supervisor.look()

    def _admit(self, job: Job, timeout: float | None) -> None:
        if job.abandoned:
            return
        if timeout is not None:
            error = RequestTimeoutError(f"The text was not read within {timeout:g} s.", "Allow more time.")
            job.timer = self._loop.call_later(timeout, fail, job.future, error)
        self._queue.put(job)
        self._wake()

    def _withdraw(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
        self._queue.remove(job)
        for supervisor in self.supervisors:
            supervisor.abandon(job)

    def _let_go(self) -> None:
        self._end(_closed())
        for supervisor in self.supervisors:
            supervisor.close()


def _closed() -> ModelError:
    return ModelError("The model was closed.", "Load it again.")


def check_count(name: str, value: object, least: int | None = 1) -> int:
    """A whole number of whatever type, as an int.

    Raises:
        UsageError: where it is none, or less than ``least``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} is no whole number but {value!r}.", "Pass an int.") from None
    if least is not None and number < least:
        raise UsageError(f"{name} is {number}, which is too few.", f"Pass at least {least}.")
    return number


def check_timeout(timeout: float | None) -> float | None:
    """The seconds themselves.

    Raises:
        UsageError: where they are no number.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, Real) or math.isnan(timeout):
        raise UsageError(f"The timeout is no number but {timeout!r}.", "Pass seconds, or None to wait for ever.")
    return float(timeout)
