"""The async twin of the model: the same words, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path

from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.inference.protocol import QueueFullError
from toolkit.inference.request import check_wish
from toolkit.inference.worker import CAPACITY, LOOK_AHEAD, WorkerModel


class AsyncEmotionModel:
    """A model whose event loop never waits for native code: the work is done in the processes of a WorkerModel.

    Texts that are awaited at the same time are read together, so ``asyncio.gather`` over many is as fast as
    :meth:`analyze_many`.
    """

    def __init__(self, worker: WorkerModel) -> None:
        self.worker = worker

    @classmethod
    async def load(
        cls,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        progress: Callable[[int, int, str], None] | None = None,
        workers: int = 1,
        capacity: int = CAPACITY,
    ) -> AsyncEmotionModel:
        """Start and load; arguments and errors as for ``WorkerModel.load``. ``progress`` is called in a thread."""
        worker = await asyncio.to_thread(
            WorkerModel.load, model, threads=threads, gpu_layers=gpu_layers, progress=progress, workers=workers,
            capacity=capacity,
        )  # fmt: skip
        return cls(worker)

    async def __aenter__(self) -> AsyncEmotionModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the workers."""
        await asyncio.to_thread(self.worker.close)

    async def analyze(
        self,
        text: str,
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
    ) -> Analysis:
        """Read one text; a task that is cancelled gives its place back. Errors as for ``WorkerModel.submit``."""
        caller = asyncio.current_task()
        return await asyncio.wrap_future(
            self.worker.submit(text, lens=lens, taxonomy=taxonomy, mode=mode, timeout=timeout, caller=caller)
        )

    def analyze_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        timeout: float | None = None,
    ) -> AsyncIterator[Analysis]:
        """Read many texts: lazily, in order, with a bounded look-ahead; the first failure ends it."""
        wish = check_wish(lens, taxonomy, mode, self.worker.lenses, self.worker.name)
        return self._stream(texts, wish.lens, wish.taxonomy, mode, timeout)

    async def _stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        lens: Lens,
        taxonomy: str,
        mode: str,
        timeout: float | None,
    ) -> AsyncIterator[Analysis]:
        caller = object()
        pending: deque[asyncio.Future[Analysis]] = deque()
        try:
            async for text in _each(texts):
                while pending and (pending[0].done() or len(pending) >= LOOK_AHEAD):
                    yield await pending.popleft()
                while True:
                    try:
                        future = self.worker.submit(
                            text, lens=lens, taxonomy=taxonomy, mode=mode, timeout=timeout, caller=caller
                        )
                        break
                    except QueueFullError:
                        if pending:
                            yield await pending.popleft()
                        else:
                            await asyncio.sleep(0.02)  # others hold all the room
                pending.append(asyncio.wrap_future(future))
            while pending:
                yield await pending.popleft()
        finally:
            for waiting in pending:
                waiting.cancel()


async def _each(texts: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
        return
    for text in texts:
        yield text
