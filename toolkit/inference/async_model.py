"""The async twin of the model: its words, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Unpack

from convert.errors import ConvertError
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError
from toolkit.inference.divergence import compare
from toolkit.inference.pool import check_timeout
from toolkit.inference.protocol import QueueFullError, RequestTimeoutError
from toolkit.inference.request import Options, Wish, refuse_lone_text
from toolkit.inference.supervisor import Failure
from toolkit.inference.worker import LOOK_AHEAD, Loading, Progress, WorkerModel, both_wishes, pool_for, start

Texts = Iterable[str] | AsyncIterable[str]


class AsyncEmotionModel:
    """A model whose event loop never waits for native code: the work is done in the processes of a WorkerModel.

    Texts that are awaited at the same time are read together, so ``asyncio.gather`` over many is as fast as
    :meth:`analyze_many`. It has the words of a WorkerModel but for ``submit``, which is a task around :meth:`analyze`
    here, and ``stream``, which is to be had of :attr:`worker` in a thread.
    """

    def __init__(self, worker: WorkerModel) -> None:
        self.worker = worker

    @classmethod
    async def load(
        cls, model: str | Path | None = None, *, progress: Progress | None = None, **loading: Unpack[Loading]
    ) -> AsyncEmotionModel:
        """Start and load; arguments and errors as for ``WorkerModel.load``. ``progress`` is called in a thread.

        A task that is cancelled meanwhile ends the workers.
        """
        pool = pool_for(model, **loading)
        try:
            return cls(WorkerModel(pool, *await asyncio.to_thread(start, pool, progress)))
        except asyncio.CancelledError:
            pool.close()  # the thread that waits for them hears of it
            raise

    async def __aenter__(self) -> AsyncEmotionModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the workers; requests without an answer fail. Safe to call twice."""
        await asyncio.to_thread(self.worker.close)

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.worker.name

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """What the model has learned."""
        return self.worker.lenses

    @property
    def noise_line(self) -> float | None:
        """What two models of one lens rarely differ by; None where that was not measured."""
        return self.worker.noise_line

    @property
    def ready(self) -> bool:
        """Whether a worker has the model loaded now."""
        return self.worker.ready

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that run now."""
        return self.worker.pids

    def wish(self, **options: Unpack[Options]) -> Wish:
        """What every method below takes as ``options``, checked. Errors as for ``WorkerModel.wish``."""
        return self.worker.wish(**options)

    async def analyze(self, text: str, *, timeout: float | None = None, **options: Unpack[Options]) -> Analysis:
        """Read one text; a task that is cancelled gives its place back. Errors as for ``WorkerModel.submit``."""
        caller = asyncio.current_task()
        return await asyncio.wrap_future(self.worker.submit(text, timeout=timeout, caller=caller, **options))

    async def compare(
        self, text: str, *, taxonomy: str | None = None, mode: str = "explain", timeout: float | None = None
    ) -> Comparison:
        """Read one text through both lenses; the failure of one ends the other.

        Errors as for :meth:`compare_many` and :meth:`analyze`.
        """
        both_wishes(self.worker, taxonomy, mode)
        try:
            async with asyncio.TaskGroup() as both:
                author, reader = (
                    both.create_task(self.analyze(text, timeout=timeout, lens=lens, taxonomy=taxonomy, mode=mode))
                    for lens in Lens
                )
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return compare(author.result(), reader.result(), self.noise_line)

    def compare_many(
        self, texts: Texts, *, taxonomy: str | None = None, mode: str = "explain", timeout: float | None = None
    ) -> AsyncIterator[Comparison]:
        """Read many texts through both lenses: lazily, in order; the first failure ends it.

        Errors as for ``WorkerModel.compare_many``.
        """
        wishes = both_wishes(self.worker, taxonomy, mode)
        return self._compared(_until_failure(self._stream(_each(texts), wishes, check_timeout(timeout), None)))

    async def _compared(self, readings: AsyncGenerator[Analysis, None]) -> AsyncIterator[Comparison]:
        async with contextlib.aclosing(readings):
            async for author in readings:
                yield compare(author, await anext(readings), self.noise_line)

    def analyze_many(
        self, texts: Texts, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> AsyncIterator[Analysis]:
        """Read many texts: lazily, in order, with a bounded look-ahead; the first failure ends it."""
        return _until_failure(self.outcomes(texts, timeout=timeout, **options))

    def outcomes(
        self, texts: Texts, *, timeout: float | None = None, patience: float | None = None, **options: Unpack[Options]
    ) -> AsyncGenerator[Analysis | Failure, None]:
        """As :meth:`analyze_many`, but a text that fails gives its error in its place and the rest goes on.

        Args:
            timeout: seconds in which a text must be read from when it is asked for, which is many texts ahead.
            patience: the same from when its outcome is awaited.
        """
        return self._stream(_each(texts), [self.wish(**options)], check_timeout(timeout), check_timeout(patience))

    async def _stream(
        self, texts: AsyncIterator[str], wishes: list[Wish], timeout: float | None, patience: float | None
    ) -> AsyncGenerator[Analysis | Failure, None]:
        """The outcome of each text in each of the ways it is to be read."""
        caller = object()
        pending: deque[asyncio.Future[Analysis]] = deque()
        try:
            async for text, wish in ((text, wish) async for text in texts for wish in wishes):
                while pending and (pending[0].done() or len(pending) >= LOOK_AHEAD):
                    yield await _outcome(pending.popleft(), patience)
                while (future := self._ask(text, wish, timeout, caller)) is None:
                    if pending:
                        yield await _outcome(pending.popleft(), patience)
                    else:
                        await asyncio.sleep(0.02)  # others hold all the room
                pending.append(asyncio.wrap_future(future))
            while pending:
                yield await _outcome(pending.popleft(), patience)
        finally:
            for waiting in pending:
                if not waiting.cancel() and not waiting.cancelled():
                    waiting.exception()  # asyncio complains of a failure that nobody looks at

    def _ask(self, text: str, wish: Wish, timeout: float | None, caller: object) -> Future[Analysis] | None:
        """The future of one text, which may have failed at once; None where there is no room for it."""
        try:
            return self.worker.submit(
                text, timeout=timeout, caller=caller, lens=wish.lens, taxonomy=wish.taxonomy, mode=wish.mode
            )
        except QueueFullError:
            return None
        except EmotionLRMError as error:  # an empty text
            future: Future[Analysis] = Future()
            future.set_exception(error)
            return future


async def _until_failure(outcomes: AsyncGenerator[Analysis | Failure, None]) -> AsyncGenerator[Analysis, None]:
    async with contextlib.aclosing(outcomes):
        async for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


async def _outcome(future: asyncio.Future[Analysis], patience: float | None) -> Analysis | Failure:
    try:
        async with asyncio.timeout(patience):
            return await future
    except TimeoutError:
        return RequestTimeoutError(f"The text was not read within {patience:g} s.", "Allow more time.")
    except (EmotionLRMError, ConvertError) as error:
        return error


def _each(texts: Texts) -> AsyncIterator[str]:
    return aiter(texts) if isinstance(texts, AsyncIterable) else _awaited(refuse_lone_text(texts))


async def _awaited(texts: Iterable[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text
