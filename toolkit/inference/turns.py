"""Inside the worker process: what waits there, and whose turn it is.

Requests with the same lens, taxonomy and mode form a group and share batches. The groups take turns of a bounded
number of texts, so that no kind of request starves another. A long text is read in slices between their turns, one
forward pass each, so that it keeps nobody waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.inference.protocol import Request, analysis_message, error_message
from toolkit.inference.request import Wish, refuse_empty

log = logging.getLogger(__name__)
TURN = 32  # as many as the engine decodes together
TOGETHER = 16  # requests for a label alone that are begun with one message: many would take as long as their reading
LONG = 8_000  # characters from which a text is read in slices

Send = Callable[[dict[str, Any]], None]
Watch = Callable[[int, Callable[[], Analysis]], None]  # as for EmotionModel.analyze_many, which is not imported here


class Model(Protocol):
    """What a turn needs of a model; None from the texts says that none waits at the moment."""

    name: str
    lenses: tuple[Lens, ...]

    @property
    def noise_line(self) -> float | None: ...

    def analyze_many(
        self,
        texts: Iterable[str | None],
        *,
        lens: Lens,
        taxonomy: str,
        mode: str,
        watch: Watch | None = None,
        pauses: bool = False,
    ) -> Iterator[Analysis]: ...

    def analyze_in_slices(
        self, text: str, *, lens: Lens, taxonomy: str, mode: str, watch: Watch | None = None
    ) -> Iterator[Analysis | None]: ...


class Inbox:
    """The requests that wait, by group, and the long ones; one thread fills it and another takes.

    Attributes:
        steps: grows while the model gets on with what it took: whenever it asks for more, writes on or is done with a
            slice, so that somebody who sees it stand still knows that native code is stuck.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._groups: dict[Wish, deque[Request]] = {}
        self._long: deque[Request] = deque()
        self._filled = threading.Condition()

    def put(self, request: Request) -> None:
        """Let a request wait."""
        with self._filled:
            if len(request.text) > LONG:
                self._long.append(request)
            else:
                self._groups.setdefault(request.wish, deque()).append(request)
            self._filled.notify()

    def drop(self, number: int) -> bool:
        """Forget a request; says whether it was still here."""
        with self._filled:
            for group in (self._long, *self._groups.values()):
                for request in group:
                    if request.number == number:
                        group.remove(request)
                        return True
        return False

    def next_group(self) -> Wish | None:
        """The group whose turn it is, which then stands behind the others; None where only a long text is here.

        Waits until something is.
        """
        with self._filled:
            while True:
                self._groups = {wish: group for wish, group in self._groups.items() if group}
                if self._groups:
                    wish = next(iter(self._groups))
                    self._groups[wish] = self._groups.pop(wish)
                    return wish
                if self._long:
                    return None
                self._filled.wait()

    def long(self) -> Request | None:
        """The long text that is to be read, or None; it stays here until it is dropped."""
        with self._filled:
            return self._long[0] if self._long else None

    def take(self, wish: Wish, most: int = 1) -> list[Request]:
        """The oldest requests of a group; none where none waits."""
        with self._filled:
            group = self._groups.get(wish) or deque[Request]()
            return [group.popleft() for _ in range(min(most, len(group)))]

    def others_wait(self, wish: Wish) -> bool:
        """Whether another group or a long text waits."""
        with self._filled:
            return bool(self._long) or any(group for other, group in self._groups.items() if other != wish)


def take_turns(model: Model, inbox: Inbox, send: Send) -> None:
    """Answer what comes, for ever."""
    slices: _Slices | None = None
    while True:
        wish = inbox.next_group()
        if wish is not None:
            _turn(model, _Feed(wish, inbox, send))
        request = inbox.long()
        if slices is None or slices.request is not request:  # the one before may have been dropped
            slices = _Slices(model, request, inbox, send) if request else None
        if slices is not None and (answer := slices.read_on()):
            if inbox.drop(slices.request.number):
                send(answer)
            slices = None


class _Slices:
    """A long text that is being read."""

    def __init__(self, model: Model, request: Request, inbox: Inbox, send: Send) -> None:
        self.request, wish = request, request.wish
        self._slices = model.analyze_in_slices(
            request.text,
            lens=wish.lens,
            taxonomy=wish.taxonomy,
            mode=wish.mode,
            watch=watching(lambda _: request, inbox, send),
        )
        self._inbox = inbox
        send({"begun": [request.number]})

    def read_on(self) -> dict[str, Any] | None:
        """Read one slice; returns the answer once it is there."""
        self._inbox.steps += 1
        try:
            analysis = next(self._slices)
        except Exception as error:
            return {"id": self.request.number, "error": error_message(error)}
        return {"id": self.request.number, "analysis": analysis_message(analysis)} if analysis is not None else None


class _Feed:
    """The texts of one turn, how many were ``taken``, and which of them the engine has not answered yet."""

    def __init__(self, wish: Wish, inbox: Inbox, send: Send) -> None:
        self.wish, self.inbox, self.send = wish, inbox, send
        self.open: deque[Request] = deque()
        self.taken = 0

    def texts(self) -> Iterator[str | None]:
        """Every text as the engine asks for one; None while it has work and no text waits."""
        most = TOGETHER if self.wish.mode == "fast" else 1  # what is begun cannot be dropped, and reasoning takes long
        while self.taken < TURN or not self.inbox.others_wait(self.wish):
            self.inbox.steps += 1
            requests = self.inbox.take(self.wish, most)
            if requests:
                self.taken += len(requests)
                self.open.extend(requests)
                self.send({"begun": [request.number for request in requests]})
                yield from (refuse_empty(request.text) for request in requests)
            elif self.open:
                yield None
            else:
                return

    def take_unanswered(self) -> list[Request]:
        """The requests that a failure leaves open; the one that was to be first bears what came before any was read."""
        return list(self.open) if self.taken else self.inbox.take(self.wish)


def _turn(model: Model, feed: _Feed) -> None:
    """Read texts until the turn is over; what a failure leaves unanswered is read once more, each text alone."""
    try:
        _answer(model, feed, feed.texts(), feed.open)
    except Exception as error:
        left = feed.take_unanswered()
        if not left:
            log.warning("A turn failed with no request left to tell.", exc_info=error)
        if len(left) == 1:
            feed.send({"id": left[0].number, "error": error_message(error)})
            return
        for request in left:
            try:
                _answer(model, feed, [refuse_empty(request.text)], deque([request]))
            except Exception as own:
                feed.send({"id": request.number, "error": error_message(own)})


def _answer(model: Model, feed: _Feed, texts: Iterable[str | None], asked: deque[Request]) -> None:
    answered, wish = 0, feed.wish
    watch = watching(lambda number: asked[number - answered], feed.inbox, feed.send)
    analyses = model.analyze_many(
        texts, lens=wish.lens, taxonomy=wish.taxonomy, mode=wish.mode, watch=watch, pauses=True
    )
    for answered, analysis in enumerate(analyses, 1):  # noqa: B007 - watch looks at it
        feed.send({"id": asked[0].number, "analysis": analysis_message(analysis)})
        asked.popleft()  # only now, so that a failure on the way does not lose it


def watching(request_of: Callable[[int], Request], inbox: Inbox, send: Send) -> Watch:
    """What passes on how far a reasoning is, to those who asked for it."""

    def watch(number: int, so_far: Callable[[], Analysis]) -> None:
        inbox.steps += 1
        request = request_of(number)
        if request.stream:
            send({"id": request.number, "partial": analysis_message(so_far())})

    return watch
