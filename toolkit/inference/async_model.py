"""The async twin of the model: the same words, awaited."""

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
from toolkit.inference.divergence import check_shared, compare
from toolkit.inference.protocol import QueueFullError, RequestTimeoutError
from toolkit.inference.request import Options
from toolkit.inference.supervisor import Failure
from toolkit.inference.worker import LOOK_AHEAD, Loading, WorkerModel

Texts = Iterable[str] | AsyncIterable[str]


class AsyncEmotionModel:
    """A model whose event loop never waits for native code: the work is done in the processes of a WorkerModel.

    Texts that are awaited at the same time are read together, so ``asyncio.gather`` over many is as fast as
    :meth:`analyze_many`.
    """

    def __init__(self, worker: WorkerModel) -> None:
        self.worker = worker

    @classmethod
    async def load(cls, model: str | Path | None = None, **loading: Unpack[Loading]) -> AsyncEmotionModel:
        """Start and load; arguments and errors as for ``WorkerModel.load``. ``progress`` is called in a thread."""
        return cls(await asyncio.to_thread(WorkerModel.load, model, **loading))

    async def __aenter__(self) -> AsyncEmotionModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the workers."""
        await asyncio.to_thread(self.worker.close)

    async def analyze(self, text: str, *, timeout: float | None = None, **options: Unpack[Options]) -> Analysis:
        """Read one text; a task that is cancelled gives its place back. Errors as for ``WorkerModel.submit``."""
        caller = asyncio.current_task()
        return await asyncio.wrap_future(self.worker.submit(text, timeout=timeout, caller=caller, **options))

    async def compare(
        self, text: str, *, taxonomy: str | None = None, mode: str = "explain", timeout: float | None = None
    ) -> Comparison:
        """Read one text through both lenses; the failure of one ends the other.

        Errors as for ``EmotionModel.compare_many`` and :meth:`analyze`.
        """
        check_shared(taxonomy)
        for lens in Lens:
            self.worker.wish(lens=lens, taxonomy=taxonomy, mode=mode)
        try:
            async with asyncio.TaskGroup() as both:
                author, reader = (
                    both.create_task(self.analyze(text, timeout=timeout, lens=lens, taxonomy=taxonomy, mode=mode))
                    for lens in Lens
                )
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return compare(author.result(), reader.result(), self.worker.noise_line)

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
        self.worker.wish(**options)
        return self._stream(texts, timeout, patience, options)

    async def _stream(
        self, texts: Texts, timeout: float | None, patience: float | None, options: Options
    ) -> AsyncGenerator[Analysis | Failure, None]:
        caller = object()
        pending: deque[asyncio.Future[Analysis]] = deque()
        try:
            async for text in _each(texts):
                while pending and (pending[0].done() or len(pending) >= LOOK_AHEAD):
                    yield await _outcome(pending.popleft(), patience)
                while True:
                    try:
                        future = self.worker.submit(text, timeout=timeout, caller=caller, **options)
                        break
                    except QueueFullError:
                        if pending:
                            yield await _outcome(pending.popleft(), patience)
                        else:
                            await asyncio.sleep(0.02)  # others hold all the room
                    except EmotionLRMError as error:  # an empty text
                        future = Future()
                        future.set_exception(error)
                        break
                pending.append(asyncio.wrap_future(future))
            while pending:
                yield await _outcome(pending.popleft(), patience)
        finally:
            for waiting in pending:
                if not waiting.cancel() and not waiting.cancelled():
                    waiting.exception()  # asyncio complains of a failure that nobody looks at


async def _until_failure(outcomes: AsyncGenerator[Analysis | Failure, None]) -> AsyncIterator[Analysis]:
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


async def _each(texts: Texts) -> AsyncIterator[str]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
        return
    for text in texts:
        yield text
