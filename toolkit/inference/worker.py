"""A model in a process of its own: many callers share its batches, and native code that aborts costs one retry."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from convert.errors import ConvertError
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens, parse_lens
from toolkit.errors import EmotionLRMError, ModelError, UsageError
from toolkit.inference.fair_queue import FairQueue, Job
from toolkit.inference.protocol import QueueFullError, Request, RequestTimeoutError
from toolkit.inference.request import Wish, check_wish, refuse_empty
from toolkit.inference.supervisor import Failure, Supervisor, fail

CAPACITY, LOOK_AHEAD, STALL_CHECK = 1024, 128, 5.0

_CLOSED = ModelError("The model was closed.", "Load it again.")


class WorkerModel:
    """A model with the words of :class:`~toolkit.inference.model.EmotionModel`, in one or more worker processes.

    Safe to use from many threads and, through :meth:`submit`, from asyncio. Requests that arrive together are read
    together, and callers take turns. When a worker dies, what it was reading is read once more; a text that ends a
    worker twice fails, and only that. Workers end with the process that made them, however it ends.

    >>> with WorkerModel.load() as model:                                   # doctest: +SKIP
    ...     futures = [model.submit(text, mode="fast") for text in ("What a day!", "Leave me alone.")]
    ...     print([future.result().emotion for future in futures])
    ['joy', 'anger']
    """

    def __init__(self, wanted: dict[str, Any], workers: int = 1, capacity: int = CAPACITY) -> None:
        self.name = ""
        self.lenses: tuple[Lens, ...] = ()
        self._capacity, self._room = capacity, threading.Semaphore(capacity)
        self._numbers, self._queue = itertools.count(), FairQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended: Failure | None = None
        self._loop = asyncio.new_event_loop()
        self._supervisors = [Supervisor(wanted, self._queue, self._events.put) for _ in range(workers)]
        self._thread = threading.Thread(target=self._work, name="emotion-lrm workers", daemon=True)

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
        workers: int = 1,
        capacity: int = CAPACITY,
    ) -> WorkerModel:
        """Start the workers and wait until they have loaded a model, as ``EmotionModel.load`` names it.

        Args:
            threads: of each worker; None shares the processors out among them.
            capacity: how many requests may be unanswered at once.

        Raises:
            ModelError: for an unknown or unusable model, or workers that do not start.
            ConvertError: for a damaged file or a build that cannot be finished.
        """
        if threads is None and workers > 1:
            from toolkit.inference.engine import available_threads

            threads = max(1, available_threads() // workers)
        wanted = {"model": str(model) if model else None, "threads": threads, "gpu_layers": gpu_layers}
        made = cls(wanted, workers, capacity)
        try:
            made._start(progress)
        except BaseException:
            made.close()
            raise
        return made

    def __enter__(self) -> WorkerModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that run now."""
        return [supervisor.pid for supervisor in self._supervisors if supervisor.pid is not None]

    def close(self) -> None:
        """End the workers; requests without an answer fail. Safe to call twice."""
        atexit.unregister(self.close)
        self._post(self._let_go)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def analyze(
        self,
        text: str,
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
    ) -> Analysis:
        """Read one text. Errors as for :meth:`submit` and in what it returns."""
        future = self.submit(text, lens=lens, taxonomy=taxonomy, mode=mode, timeout=timeout)
        try:
            return future.result()
        finally:
            future.cancel()  # an interrupted caller waits no longer; anywhere else this does nothing

    def analyze_many(
        self,
        texts: Iterable[str],
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
    ) -> Iterator[Analysis]:
        """Read many texts: lazily, in order, with a bounded look-ahead; the first failure ends it."""
        wish = check_wish(lens, taxonomy, mode, self.lenses, self.name)
        return _until_failure(self._stream(texts, wish, timeout))

    def outcomes(
        self,
        texts: Iterable[str],
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
    ) -> Iterator[Analysis | Failure]:
        """As :meth:`analyze_many`, but a text that fails gives its error in its place and the rest goes on."""
        return self._stream(texts, check_wish(lens, taxonomy, mode, self.lenses, self.name), timeout)

    def submit(
        self,
        text: str,
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
        caller: Hashable = None,
    ) -> Future[Analysis]:
        """Ask for one text without waiting; the future can be cancelled, and awaited with ``asyncio.wrap_future``.

        Args:
            timeout: seconds from now after which the future fails with a RequestTimeoutError.
            caller: whose request it is, where one thread speaks for several; None is the calling thread.

        Raises:
            QueueFullError: where ``capacity`` requests are unanswered.
            UsageError: for an empty text, an unknown mode, or a taxonomy that the lens cannot answer in.

        The future may hold a RequestTimeoutError, a WorkerDiedError where the text ended two workers, and a ModelError
        where the model was closed or cannot be loaded any more.
        """
        wish = check_wish(lens, taxonomy, mode, self.lenses, self.name)
        refuse_empty(text)
        if not self._room.acquire(blocking=False):
            raise QueueFullError(
                f"{self._capacity} texts are waiting already.", "Try again in a moment, or allow for more of them."
            )
        return self._enqueue(text, wish, timeout, threading.get_ident() if caller is None else caller)

    def _stream(
        self, texts: Iterable[str], wish: Wish, timeout: float | None
    ) -> Generator[Analysis | Failure, None, None]:
        caller = object()
        pending: deque[Future[Analysis]] = deque()
        try:
            for text in texts:
                while pending and (pending[0].done() or len(pending) >= LOOK_AHEAD):
                    yield _outcome(pending.popleft())
                while not self._room.acquire(blocking=not pending):
                    yield _outcome(pending.popleft())
                pending.append(self._enqueue(text, wish, timeout, caller))
            while pending:
                yield _outcome(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def _enqueue(self, text: str, wish: Wish, timeout: float | None, caller: Hashable) -> Future[Analysis]:
        """Hand a request, for which there is room, to the thread of the workers."""
        future: Future[Analysis] = Future()
        job = Job(Request(next(self._numbers), text, wish), future, caller)
        future.add_done_callback(lambda _: self._forget(job))
        with self._lock:
            ended = self._ended
            if ended is None and text.strip():
                self._post(self._admit, job, timeout)
        if ended is not None:
            fail(future, type(ended)(str(ended), ended.hint))
        elif not text.strip():
            fail(future, UsageError("The text is empty.", "Pass at least one word."))
        return future

    def _forget(self, job: Job) -> None:
        """In whatever thread a future got its result: make room, and take the request out of the way."""
        self._room.release()
        if job.future.cancelled():
            job.future.set_running_or_notify_cancel()  # tells concurrent.futures.wait
        elif job.future.exception() is None and job.timer is None:
            return
        self._post(self._withdraw, job)

    # In the thread of the workers

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._supervise())
        finally:
            self._loop.close()

    async def _supervise(self) -> None:
        checks = asyncio.create_task(self._check_stalls())
        try:
            failures = await asyncio.gather(*(supervisor.run() for supervisor in self._supervisors))
            self._end(next((failure for failure in failures if failure), _CLOSED))
        finally:
            self._end(ModelError("The worker's supervision failed.", "Report this with --debug."))
            checks.cancel()
            await asyncio.sleep(0)  # what was handed over before the end is in the queue now
            assert self._ended is not None
            for job in (*self._queue.drain(), *(job for one in self._supervisors for job in one.drain())):
                fail(job.future, self._ended)

    async def _check_stalls(self) -> None:
        while True:
            await asyncio.sleep(STALL_CHECK)
            for supervisor in self._supervisors:
                supervisor.check_stall()

    def _admit(self, job: Job, timeout: float | None) -> None:
        if job.abandoned:
            return
        if timeout is not None:
            error = RequestTimeoutError(f"The text was not read within {timeout:g} s.", "Allow more time.")
            job.timer = self._loop.call_later(timeout, fail, job.future, error)
        self._queue.put(job)
        for supervisor in self._supervisors:
            supervisor.wake()

    def _withdraw(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
        self._queue.remove(job)
        for supervisor in self._supervisors:
            supervisor.abandon(job)

    def _let_go(self) -> None:
        self._end(_CLOSED)
        for supervisor in self._supervisors:
            supervisor.close()

    # In any thread

    def _start(self, progress: Callable[[int, int, str], None] | None) -> None:
        """Start the workers and wait until each is ready."""
        self._thread.start()
        atexit.register(self.close)
        ready = 0
        while ready < len(self._supervisors):
            event = self._events.get()
            if "failed" in event:
                raise event["failed"]
            if "ready" in event:
                ready += 1
                self.name, self.lenses = event["ready"]["name"], tuple(map(parse_lens, event["ready"]["lenses"]))
            elif progress is not None:
                progress(*event["progress"])

    def _end(self, cause: Failure) -> None:
        """From now on nothing is accepted; the first cause stays."""
        with self._lock:
            self._ended = self._ended or cause

    def _post(self, act: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all that was to be done is
            self._loop.call_soon_threadsafe(act, *args)


def _until_failure(outcomes: Generator[Analysis | Failure, None, None]) -> Iterator[Analysis]:
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def _outcome(future: Future[Analysis]) -> Analysis | Failure:
    try:
        return future.result()
    except (EmotionLRMError, ConvertError) as error:
        return error
