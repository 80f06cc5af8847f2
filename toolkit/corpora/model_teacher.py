"""A model as teacher: builds the request for each chain, asks each once, many at a time, within a budget of tokens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from toolkit.corpora.answers import Answer, AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.pace import Budget
from toolkit.corpora.request import Request, most_tokens, read_answer, request_for
from toolkit.corpora.teachers import REFUSED, Ask, NoAnswer, RefusedError


class Source(Protocol):
    """Where answers come from: an endpoint, or a model in this process.

    Attributes:
        retries: how many requests were sent anew.
        identity: tells it from others that have a model of the same name: its address, or the hash of its file.
    """

    retries: int
    identity: str

    def ask(self, request: Request) -> Answer | NoAnswer:
        """The answer to ``request``, or why it cannot be asked.

        Raises:
            RefusedError: where the request is refused, and perhaps every other would be.
            TeacherError: where no request would be answered.
        """
        ...

    def stop(self) -> None:
        """Begin nothing further."""
        ...


class ModelTeacher:
    """Asks a model for chains. Used as a context.

    Whatever ends the context early, Ctrl-C too, lets the requests under way finish, so that what was paid for is kept.

    Args:
        source: answers; from several threads where ``config.concurrency`` is above 1.
        model: the name that is asked for, part of what makes two requests equal.
        store: keeps every answer as it comes.
    """

    def __init__(self, source: Source, model: str, config: AskConfig, store: AnswerStore) -> None:
        self.source, self.model, self.config, self.store = source, model, config, store
        self.budget = Budget(config.max_tokens_total)
        self._pool = ThreadPoolExecutor(config.concurrency, "teacher")
        self._asking, self._changed = 0, threading.Condition()
        self._asked: list[str] = []  # appending is safe from many threads
        self._known: list[str] = []
        self._answers = False  # whether it has ever answered, in this run or for the store

    def __enter__(self) -> ModelTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._changed:  # Ctrl-C in the middle of submitting leaves a thread that the pool does not wait for
            self._changed.wait_for(lambda: not self._asking)

    def write_all(self, asks: Sequence[Ask]) -> Iterator[str | NoAnswer]:
        """The answers in order; see :class:`~toolkit.corpora.teachers.Teacher`.

        A text whose request is refused goes without; the run ends only where the first is, and those begun beside it.
        """
        requests = [request_for(ask, self.model, self.config) for ask in asks]
        futures = [self._pool.submit(self._answer, request) for request in requests]
        try:
            for future in futures:
                yield self._read(future, futures[: self.config.concurrency])
        finally:
            for future in futures:
                future.cancel()

    def usage(self) -> dict[str, int]:
        """How many requests were asked, sent anew, and known already, and the tokens spent."""
        counts = {"asked": len(self._asked), "retried": self.source.retries, "known": len(self._known)}
        return counts | {"tokens": self.budget.spent}

    def _read(self, future: Future[Answer | NoAnswer], first: Sequence[Future[Answer | NoAnswer]]) -> str | NoAnswer:
        try:
            answer = future.result()
        except RefusedError:
            self._answers = self._answers or any(map(_is_answered, first))
            if not self._answers:
                raise
            return REFUSED
        if isinstance(answer, NoAnswer):
            return answer
        self._answers = True
        return read_answer(answer.content)

    def _answer(self, request: Request) -> Answer | NoAnswer:
        key = hashlib.sha256(f"{self.source.identity} {request.key}".encode()).hexdigest()
        known = self.store.get(key)
        if known is not None:
            self._known.append(key)
            return known
        with self._counted():
            return self._asked_for(request, key)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._asking += 1
        try:
            yield
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def _asked_for(self, request: Request, key: str) -> Answer | NoAnswer:
        most = most_tokens(request)
        self.budget.reserve(most)
        spent = 0
        try:
            answer = self.source.ask(request)
            if isinstance(answer, NoAnswer):
                return answer
            spent = answer.tokens
        finally:
            self.budget.settle(most, spent)
        self._asked.append(key)
        self.store.add(key, answer)
        return answer


def _is_answered(future: Future[Answer | NoAnswer]) -> bool:
    """Whether it brought an answer, once it is done."""
    return future.exception() is None and isinstance(future.result(), Answer)
