"""A model as teacher: builds the request for each chain, asks each once, many at a time, within a budget of tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from toolkit.corpora.answers import Answer, AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.pace import Budget
from toolkit.corpora.request import Request, most_tokens, read_answer, request_for
from toolkit.corpora.teachers import Ask, NoAnswer


class Source(Protocol):
    """Where answers come from: an endpoint, or a model in this process.

    Attributes:
        retries: how many requests were sent anew.
    """

    retries: int

    def ask(self, request: Request) -> Answer:
        """The answer to ``request``."""
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

    def __enter__(self) -> ModelTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._changed:  # Ctrl-C in the middle of submitting leaves a thread that the pool does not wait for
            self._changed.wait_for(lambda: not self._asking)

    def write_all(self, asks: Sequence[Ask]) -> Iterator[str | NoAnswer]:
        """The answers in order; see :class:`~toolkit.corpora.teachers.Teacher`."""
        requests = [request_for(ask, self.model, self.config) for ask in asks]
        futures = [self._pool.submit(self._answer, request) for request in requests]
        try:
            for future in futures:
                yield read_answer(future.result().content)
        finally:
            for future in futures:
                future.cancel()

    def usage(self) -> dict[str, int]:
        """How many requests were asked, sent anew, and known already, and the tokens spent."""
        counts = {"asked": len(self._asked), "retried": self.source.retries, "known": len(self._known)}
        return counts | {"tokens": self.budget.spent}

    def _answer(self, request: Request) -> Answer:
        known = self.store.get(request.key)
        if known is not None:
            self._known.append(request.key)
            return known
        with self._counted():
            return self._asked_for(request)

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

    def _asked_for(self, request: Request) -> Answer:
        most = most_tokens(request)
        self.budget.reserve(most)
        spent = 0
        try:
            answer = self.source.ask(request)
            spent = answer.tokens
        finally:
            self.budget.settle(most, spent)
        self._asked.append(request.key)
        self.store.add(request.key, answer)
        return answer
