"""A model in a process of its own: many callers share its batches, and native code that aborts costs one retry."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TypedDict, Unpack

from convert.errors import ConvertError
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens, parse_lens
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.inference.divergence import check_shared, compare
from toolkit.inference.pool import Pool, check_count, check_timeout
from toolkit.inference.protocol import QueueFullError
from toolkit.inference.request import Options, Wish, check_wish, refuse_empty, refuse_lone_text
from toolkit.inference.supervisor import Failure
from toolkit.inference.tuning import free_threads

CAPACITY, LOOK_AHEAD = 1024, 128
Progress = Callable[[int, int, str], None]


class Loading(TypedDict, total=False):
    """The keywords of :meth:`WorkerModel.load`, ``progress`` apart."""

    threads: int | None
    gpu_layers: int
    adapter: str | Path | None
    workers: int
    capacity: int


class WorkerModel:
    """A model with the words of :class:`~toolkit.inference.model.EmotionModel`, in one or more worker processes.

    Safe to use from many threads and, through :meth:`submit`, from asyncio. Requests that arrive together are read
    together, and callers take turns. When a worker dies, what it was reading is read once more; a text that ends a
    worker twice fails, and only that. A worker that hangs or is stuck is ended and counts as dead. Workers end with the
    process that made them, however it ends. ``timeout`` is everywhere the seconds in which a text must be read from
    when it is handed over.

    Examples:
        >>> with WorkerModel.load() as model:                                   # doctest: +SKIP
        ...     futures = [model.submit(text, mode="fast") for text in ("What a day!", "Leave me alone.")]
        ...     print([future.result().emotion for future in futures])
        ['joy', 'anger']
    """

    def __init__(self, pool: Pool, name: str, lenses: tuple[Lens, ...], noise_line: float | None) -> None:
        self._pool, self.name, self.lenses, self.noise_line = pool, name, lenses, noise_line

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        adapter: str | Path | None = None,
        progress: Progress | None = None,
        workers: int = 1,
        capacity: int = CAPACITY,
    ) -> WorkerModel:
        """Start the workers and wait until they have loaded a model, as ``EmotionModel.load`` names it.

        Args:
            threads: of each worker; None shares out among them the processors that are free.
            capacity: how many requests may be unanswered at once.

        Raises:
            UsageError: for a number that is none or too small.
            ModelError: for an unknown or unusable model, or workers that do not start.
            ConvertError: for a damaged file or a build that cannot be finished.
        """
        pool = pool_for(
            model, threads=threads, gpu_layers=gpu_layers, adapter=adapter, workers=workers, capacity=capacity
        )
        return cls(pool, *start(pool, progress))

    def __enter__(self) -> WorkerModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that run now."""
        return [pid for supervisor in self._pool.supervisors if (pid := supervisor.pid) is not None]

    @property
    def ready(self) -> bool:
        """Whether a worker has the model loaded now."""
        return any(supervisor.ready for supervisor in self._pool.supervisors)

    def close(self) -> None:
        """End the workers; requests without an answer fail. Safe to call twice."""
        self._pool.close()

    def wish(self, *, lens: Lens | str = Lens.AUTHOR, taxonomy: str | None = None, mode: str = "explain") -> Wish:
        """What every method below takes as ``options``, checked.

        Raises:
            UsageError: for an unknown mode, a lens that the model has not learned, or a taxonomy that it cannot
                answer in.
        """
        return check_wish(lens, taxonomy, mode, self.lenses, self.name)

    def analyze(self, text: str, *, timeout: float | None = None, **options: Unpack[Options]) -> Analysis:
        """Read one text. Errors as for :meth:`submit` and in what it returns."""
        future = self.submit(text, timeout=timeout, **options)
        try:
            return future.result()
        finally:
            future.cancel()  # an interrupted caller waits no longer; anywhere else this does nothing

    def analyze_many(
        self, texts: Iterable[str], *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Iterator[Analysis]:
        """Read many texts: lazily, in order, with a bounded look-ahead; the first failure ends it."""
        return _until_failure(self.outcomes(texts, timeout=timeout, **options))

    def compare(
        self, text: str, *, taxonomy: str | None = None, mode: str = "explain", timeout: float | None = None
    ) -> Comparison:
        """Read one text through both lenses. Errors as for :meth:`compare_many`."""
        return next(self.compare_many([refuse_empty(text)], taxonomy=taxonomy, mode=mode, timeout=timeout))

    def compare_many(
        self, texts: Iterable[str], *, taxonomy: str | None = None, mode: str = "explain", timeout: float | None = None
    ) -> Iterator[Comparison]:
        """Read many texts through both lenses: lazily, in order; the first failure ends it.

        Raises:
            UsageError: as for :meth:`wish`, and for a taxonomy that the lenses do not share.
        """
        wishes = both_wishes(self, taxonomy, mode)
        asked = ((text, wish) for text in refuse_lone_text(texts) for wish in wishes)
        readings = _until_failure(self._stream(asked, check_timeout(timeout)))
        return (compare(author, next(readings), self.noise_line) for author in readings)

    def outcomes(
        self, texts: Iterable[str], *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generator[Analysis | Failure, None, None]:
        """As :meth:`analyze_many`, but a text that fails gives its error in its place and the rest goes on."""
        wish = self.wish(**options)
        return self._stream(((text, wish) for text in refuse_lone_text(texts)), check_timeout(timeout))

    def submit(
        self, text: str, *, timeout: float | None = None, caller: Hashable = None, **options: Unpack[Options]
    ) -> Future[Analysis]:
        """Ask for one text without waiting; the future can be cancelled, and awaited with ``asyncio.wrap_future``.

        Args:
            timeout: seconds from now after which the future fails with a RequestTimeoutError.
            caller: whose request it is, where one thread speaks for several; None is the calling thread.

        Raises:
            QueueFullError: where ``capacity`` requests are unanswered.
            UsageError: for an empty text, a timeout that is no number, a caller that has no hash, and as for
                :meth:`wish`.

        The future may hold a RequestTimeoutError, a WorkerDiedError where the text ended two workers, and a ModelError
        where the model was closed or cannot be loaded any more.
        """
        try:
            hash(caller)
        except TypeError as error:
            raise UsageError(f"The caller cannot be told from others: {error}.", "Pass a str or an int.") from None
        return self._submit(text, self.wish(**options), timeout, threading.get_ident() if caller is None else caller)

    def stream(
        self, text: str, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generator[Analysis, None, None]:
        """Read one text and give its analysis again whenever the reasoning has grown; the last one is the whole.

        In fast mode the whole is all there is. The text is asked for with the first ``next``, and closing the iterator
        gives it up. Errors as for :meth:`submit` and in what it returns.
        """
        return self._follow(refuse_empty(text), self.wish(**options), check_timeout(timeout))

    def _follow(self, text: str, wish: Wish, timeout: float | None) -> Generator[Analysis, None, None]:
        so_far: SimpleQueue[Analysis | None] = SimpleQueue()
        future = self._submit(text, wish, timeout, threading.get_ident(), so_far.put)
        future.add_done_callback(lambda _: so_far.put(None))
        try:
            yield from iter(so_far.get, None)
            yield future.result()
        finally:
            future.cancel()

    def _submit(
        self, text: str, wish: Wish, timeout: float | None, caller: Hashable,
        told: Callable[[Analysis], object] | None = None,
    ) -> Future[Analysis]:  # fmt: skip
        refuse_empty(text)
        timeout = check_timeout(timeout)
        if not self._pool.room.acquire(blocking=False):
            raise QueueFullError(
                f"{self._pool.capacity} texts are waiting already.", "Try again in a moment, or allow for more of them."
            )
        return self._pool.enqueue(text, wish, timeout, caller, told)

    def _stream(
        self, asked: Iterable[tuple[str, Wish]], timeout: float | None
    ) -> Generator[Analysis | Failure, None, None]:
        caller = object()
        pending: deque[Future[Analysis]] = deque()
        try:
            for text, wish in asked:
                while pending and (pending[0].done() or len(pending) >= LOOK_AHEAD):
                    yield _outcome(pending.popleft())
                while not self._pool.room.acquire(blocking=not pending):
                    yield _outcome(pending.popleft())
                pending.append(self._pool.enqueue(text, wish, timeout, caller))
            while pending:
                yield _outcome(pending.popleft())
        finally:
            for future in pending:
                future.cancel()


def pool_for(
    model: str | Path | None = None, *, threads: int | None = None, gpu_layers: int = 0,
    adapter: str | Path | None = None, workers: int = 1, capacity: int = CAPACITY,
) -> Pool:  # fmt: skip
    """The workers that :meth:`WorkerModel.load` is asked for, which are still to be started.

    Raises:
        UsageError: for a number that is none or too small.
    """
    workers, capacity = check_count("workers", workers), check_count("capacity", capacity)
    if threads is None and workers > 1:
        threads = max(1, free_threads() // workers)
    files = {name: str(path) if path else None for name, path in (("model", model), ("adapter", adapter))}
    threads = None if threads is None else check_count("threads", threads)
    wanted = {**files, "threads": threads, "gpu_layers": check_count("gpu_layers", gpu_layers, least=None)}
    return Pool(wanted, workers, capacity)


def start(pool: Pool, progress: Progress | None = None) -> tuple[str, tuple[Lens, ...], float | None]:
    """Start a pool and wait until its model is loaded; returns its name, lenses and noise line.

    Errors as for :meth:`WorkerModel.load`; a ModelError too where another thread closes the pool meanwhile.
    """
    try:
        told = pool.start(progress)
    except BaseException:
        pool.close()
        raise
    return told["name"], tuple(map(parse_lens, told["lenses"])), told["noise_line"]


def both_wishes(model: WorkerModel, taxonomy: str | None, mode: str) -> list[Wish]:
    """What a comparison asks for: one wish a lens. Errors as for :meth:`WorkerModel.compare_many`."""
    check_shared(taxonomy)
    return [model.wish(lens=lens, taxonomy=taxonomy, mode=mode) for lens in Lens]


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
