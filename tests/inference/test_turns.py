"""What parent and worker say to each other, and who is served when; without a process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from convert.errors import GGUFError
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference.fair_queue import FairQueue, Job
from toolkit.inference.protocol import Request, WorkerDiedError, decode, encode, error_from, error_message, request_from
from toolkit.inference.request import Wish
from toolkit.inference.turns import LONG, TURN, Inbox, take_turns
from toolkit.inference.worker_process import Outbox

from .processes import eventually
from .stand_in import StandIn

FAST = Wish(Lens.AUTHOR, "goemotions", "fast")


# Protocol


@pytest.mark.parametrize("text", ["plain", "two\nlines\u2028", "\ud800", "\x00", '"}\n{"drop": 1}', "👩\u200d👧"])
def test_every_text_survives_the_journey(text: str) -> None:
    line = encode(Request(7, text, FAST).to_message())
    assert line.count(b"\n") == 1
    assert request_from(decode(line)) == Request(7, text, FAST)


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (ModelError("m", "h"), ModelError, "h"),
        (GGUFError("m", "h"), GGUFError, "h"),
        (WorkerDiedError("m", "h"), ModelError, "h"),
        (MemoryError(), ModelError, "Close other programs."),
        (ZeroDivisionError("m"), ModelError, "Run it again with --debug, and report the traceback."),
    ],
)
def test_errors_arrive_as_the_same_type(error: Exception, kind: type[Exception], hint: str) -> None:
    found = error_from(error_message(error))
    assert type(found) is kind
    assert found.hint == hint


def test_a_failure_brings_the_place_where_it_happened() -> None:
    try:
        raise ZeroDivisionError("m")
    except ZeroDivisionError as error:
        found = error_from(decode(encode(error_message(error))))
    [note] = found.__notes__
    assert "test_a_failure_brings_the_place_where_it_happened" in note
    assert str(found) == "The worker failed with ZeroDivisionError: m"


def test_an_unknown_type_of_message_makes_no_object() -> None:
    found = error_from({"type": "os.system", "message": "m", "hint": ""})
    assert (type(found).__name__, str(found)) == ("EmotionLRMError", "m")


# Order and fairness


def job(caller: object, number: int = 0) -> Job:
    return Job(Request(number, "x", FAST), Future(), caller)


def test_callers_take_turns_however_much_one_has_asked_for() -> None:
    queue = FairQueue()
    for caller in ["greedy"] * 5 + ["modest"] * 2 + ["late"]:
        queue.put(job(caller))
    order = []
    while taken := queue.take():
        order.append(taken.caller)
    assert order == ["greedy", "modest", "late", "greedy", "modest", "greedy", "greedy", "greedy"]


def test_a_job_that_is_put_back_comes_before_the_others_of_its_caller() -> None:
    queue = FairQueue()
    first, second, third = (job("a", n) for n in range(3))
    for one in (first, second, third):
        queue.put(one)
    assert queue.take() is first
    queue.put_back(first)
    queue.remove(second)
    third.future.cancel()
    assert queue.take() is first
    assert queue.take() is None
    assert len(queue) == 0


def test_long_texts_wait_apart_and_their_callers_take_turns_too() -> None:
    queue = FairQueue()
    for caller, text in (("a", "x" * (LONG + 1)), ("a", "y" * (LONG + 1)), ("a", "short"), ("b", "z" * (LONG + 1))):
        queue.put(Job(Request(0, text, FAST), Future(), caller))
    assert len(queue) == 4
    taken = [queue.take(long) for long in (False, False, True, True, True, True)]
    assert [one and one.request.text[0] for one in taken] == ["s", None, "x", "z", "y", None]


class Enough(BaseException):
    """Ends a model that would serve for ever."""


class Recorder:
    """A model that notes the texts of each turn and never answers more than ``total`` of them."""

    name, lenses, noise_line = "recorder", (Lens.AUTHOR,), None

    def __init__(self, total: int) -> None:
        self.turns: list[tuple[str, int]] = []
        self.total = total

    def analyze_many(
        self,
        texts: Iterator[str | None],
        *,
        mode: str,
        **_: object,
    ) -> Iterator[Analysis]:
        count = 0
        for text in texts:
            if text is None:
                break
            count += 1
        self.turns.append((mode, count))
        self.total -= count
        if self.total <= 0:
            raise Enough
        yield from ()


def test_groups_take_turns_of_bounded_length() -> None:
    inbox, model = Inbox(), Recorder(3 * TURN)
    explain = Wish(Lens.AUTHOR, "goemotions", "explain")
    for number in range(2 * TURN):
        inbox.put(Request(number, "x", FAST))
    for number in range(TURN):
        inbox.put(Request(1000 + number, "x", explain))
    with pytest.raises(Enough):
        take_turns(model, inbox, lambda _: None)
    assert model.turns == [("fast", TURN), ("explain", TURN), ("fast", TURN)]


class Joined(Recorder):
    """While it works on its first text, a second one arrives."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(1)
        self.inbox = inbox
        self.seen: list[str | None] = []

    def analyze_many(self, texts: Iterator[str | None], **_: object) -> Iterator[Analysis]:
        self.seen += [next(texts), next(texts)]
        self.inbox.put(Request(2, "second", FAST))
        self.seen += [next(texts), next(texts)]
        raise Enough
        yield


def test_a_request_joins_the_turn_that_goes_on() -> None:
    inbox = Inbox()
    model = Joined(inbox)
    inbox.put(Request(1, "first", FAST))
    with pytest.raises(Enough):
        take_turns(model, inbox, lambda _: None)
    assert model.seen == ["first", None, "second", None]


class FailsLate(StandIn):
    """It fails when all is answered, and by then the next request waits."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    def analyze_many(self, texts: Iterable[str | None], **options: Any) -> Iterator[Analysis]:
        yield from super().analyze_many(texts, **options)
        self.inbox.put(Request(2, "second", FAST))
        raise ValueError("late")


def test_a_failure_after_the_last_answer_costs_no_request_that_comes_then(caplog: pytest.LogCaptureFixture) -> None:
    inbox, sent = Inbox(), list[dict[str, Any]]()

    def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message.get("id") == 2:
            raise Enough

    inbox.put(Request(1, "first", FAST))
    with pytest.raises(Enough):
        take_turns(FailsLate(inbox), inbox, send)
    answers = [message for message in sent if "id" in message]
    assert [(answer["id"], "analysis" in answer) for answer in answers] == [(1, True), (2, True)]
    assert "late" in caplog.text


def test_an_answer_that_cannot_be_sent_is_not_lost() -> None:
    inbox, answers = Inbox(), list[dict[str, Any]]()

    def send(message: dict[str, Any]) -> None:
        if "id" in message:
            answers.append(message)
            raise Enough if len(answers) == 2 else ValueError("cannot be sent")

    inbox.put(Request(1, "first", FAST))
    with pytest.raises(Enough):
        take_turns(StandIn(), inbox, send)
    assert [answer["id"] for answer in answers] == [1, 1]
    assert answers[1]["error"]["message"].startswith("The worker failed with ValueError: cannot be sent")


def test_what_is_dropped_is_not_read() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put(Request(number, "x", FAST))
    assert inbox.drop(1)
    assert not inbox.drop(1)
    inbox.put(Request(3, "x", FAST))
    taken = [[request.number for request in inbox.take(FAST, most)] for most in (2, 1, 1)]
    assert taken == [[0, 2], [3], []]


class Sliced(Recorder):
    """A model that needs three slices for a long text, during which short ones arrive."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(1_000)
        self.inbox = inbox
        self.events: list[str] = []

    def analyze_many(self, texts: Iterator[str | None], **_: object) -> Iterator[Analysis]:
        for text in texts:
            if text is not None:
                self.events.append(text)
                raise ModelError("answered")
            return
        yield

    def analyze_in_slices(self, text: str, **_: object) -> Iterator[Analysis | None]:
        for number in range(3):
            self.events.append(f"slice {number}")
            self.inbox.put(Request(10 + number, f"short {number}", FAST))
            yield None
        self.events.append(text[:4])
        raise ModelError("the long one failed")


def test_a_long_text_keeps_nobody_waiting() -> None:
    inbox, sent = Inbox(), list[dict[str, Any]]()
    model = Sliced(inbox)

    def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message.get("id") == 7:
            raise Enough

    inbox.put(Request(7, "long" * LONG, FAST))
    with pytest.raises(Enough):
        take_turns(model, inbox, send)
    assert model.events == ["slice 0", "short 0", "slice 1", "short 1", "slice 2", "short 2", "long"]
    assert [message["id"] for message in sent if "id" in message] == [10, 11, 12, 7]
    assert sent[-1]["error"]["message"] == "the long one failed"


def test_a_long_text_that_is_dropped_is_not_read_on() -> None:
    inbox, sent = Inbox(), list[dict[str, Any]]()

    class Dropped(Sliced):
        def analyze_in_slices(self, text: str, **_: object) -> Iterator[Analysis | None]:
            for number in range(3):
                self.events.append(f"{text[:4]} {number}")
                if number == 1 and text.startswith("long"):
                    assert self.inbox.drop(7)
                yield None
            raise Enough

    inbox.put(Request(7, "long" * LONG, FAST))
    inbox.put(Request(8, "next" * LONG, FAST))
    model = Dropped(inbox)
    with pytest.raises(Enough):
        take_turns(model, inbox, sent.append)
    assert model.events == ["long 0", "long 1", "next 0", "next 1", "next 2"]
    assert [message["begun"] for message in sent] == [[7], [8]]
    assert not any("analysis" in message or "error" in message for message in sent)


def test_answers_are_written_together_and_before_more_is_begun() -> None:
    written, busy = list[bytes](), threading.Lock()

    def write(lines: bytes) -> None:
        with busy:
            written.append(lines)

    outbox = Outbox(write)
    with busy:  # the pipe is slow
        for number in range(3):
            outbox.put({"id": number})
        asking = threading.Thread(target=outbox.put, args=({"begun": [3]},))
        asking.start()
        asking.join(0.1)
        assert asking.is_alive()  # the engine waits until it is told
    asking.join(5)
    told = [decode(line) for line in b"".join(written).splitlines()]
    assert told == [{"id": 0}, {"id": 1}, {"id": 2}, {"begun": [3]}]
    assert len(written) <= 2


def test_an_answer_is_written_though_nothing_more_is_begun() -> None:
    written = list[bytes]()
    outbox = Outbox(written.append)
    for number in range(3):
        outbox.put({"id": number})
        eventually(lambda number=number: len(written) == number + 1)
