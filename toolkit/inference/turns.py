"""Inside the worker process: what waits there, and whose turn it is.

Requests with the same lens, taxonomy and mode form a group and share batches. The groups take turns of a bounded
number of texts, so that no kind of request starves another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.inference.protocol import Request, analysis_message, error_message
from toolkit.inference.request import Wish, refuse_empty

TURN = 32  # as many as the engine decodes together

Send = Callable[[dict[str, Any]], None]


class Model(Protocol):
    """What a turn needs of a model; None from the texts says that none waits at the moment."""

    name: str
    lenses: tuple[Lens, ...]

    @property
    def noise_line(self) -> float | None: ...

    def analyze_many(
        self, texts: Iterable[str | None], *, lens: Lens, taxonomy: str, mode: str
    ) -> Iterator[Analysis]: ...


class Inbox:
    """The requests that wait, by group; one thread fills it and another takes."""

    def __init__(self) -> None:
        self._groups: dict[Wish, deque[Request]] = {}
        self._filled = threading.Condition()

    def put(self, request: Request) -> None:
        """Let a request wait."""
        with self._filled:
            self._groups.setdefault(request.wish, deque()).append(request)
            self._filled.notify()

    def drop(self, number: int) -> bool:
        """Forget a request; says whether it was still waiting."""
        with self._filled:
            for group in self._groups.values():
                for request in group:
                    if request.number == number:
                        group.remove(request)
                        return True
        return False

    def next_group(self) -> Wish:
        """The group whose turn it is; waits until there is one. It then stands behind the others."""
        with self._filled:
            while True:
                self._groups = {wish: group for wish, group in self._groups.items() if group}
                if self._groups:
                    wish = next(iter(self._groups))
                    self._groups[wish] = self._groups.pop(wish)
                    return wish
                self._filled.wait()

    def take(self, wish: Wish) -> Request | None:
        """The oldest request of a group, or None where none waits."""
        with self._filled:
            group = self._groups.get(wish)
            return group.popleft() if group else None

    def others_wait(self, wish: Wish) -> bool:
        """Whether another group waits."""
        with self._filled:
            return any(group for other, group in self._groups.items() if other != wish)


def take_turns(model: Model, inbox: Inbox, send: Send) -> None:
    """Answer what comes, for ever."""
    while True:
        wish = inbox.next_group()
        _turn(model, wish, _Feed(wish, inbox, send), send)


class _Feed:
    """The texts of one turn, and which of them the engine has not answered yet."""

    def __init__(self, wish: Wish, inbox: Inbox, send: Send) -> None:
        self._wish, self._inbox, self._send = wish, inbox, send
        self.open: deque[Request] = deque()

    def texts(self) -> Iterator[str | None]:
        """Every text as the engine asks for one; None while it has work and no text waits."""
        taken = 0
        while taken < TURN or not self._inbox.others_wait(self._wish):
            request = self._inbox.take(self._wish)
            if request is not None:
                taken += 1
                self.open.append(request)
                self._send({"begun": request.number})
                yield refuse_empty(request.text)
            elif self.open:
                yield None
            else:
                return

    def first(self) -> list[Request]:
        """The request that was to be next: it bears a failure that came before any text was read."""
        request = self._inbox.take(self._wish)
        return [request] if request else []


def _turn(model: Model, wish: Wish, feed: _Feed, send: Send) -> None:
    """Read texts until the turn is over; what a failure leaves unanswered is read once more, each text alone."""
    try:
        _answer(model, wish, feed.texts(), feed.open, send)
    except Exception as error:
        left = list(feed.open) or feed.first()
        if len(left) == 1:
            send({"id": left[0].number, "error": error_message(error)})
            return
        for request in left:
            try:
                _answer(model, wish, [refuse_empty(request.text)], deque([request]), send)
            except Exception as own:
                send({"id": request.number, "error": error_message(own)})


def _answer(model: Model, wish: Wish, texts: Iterable[str | None], asked: deque[Request], send: Send) -> None:
    for analysis in model.analyze_many(texts, lens=wish.lens, taxonomy=wish.taxonomy, mode=wish.mode):
        send({"id": asked.popleft().number, "analysis": analysis_message(analysis)})
