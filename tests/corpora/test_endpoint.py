"""The endpoint client against a real server that misbehaves: retries, waits, refuses, and never shows the key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.corpora.misbehaving import Reply, Script, chat, failure, serving
from toolkit.contract.example import Example
from toolkit.corpora import endpoint as module
from toolkit.corpora.answers import Answer
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.endpoint import KEY, Endpoint, retry_after
from toolkit.corpora.request import request_for
from toolkit.corpora.teachers import Ask, NoAnswer, TeacherError

QUICK = AskConfig(backoff=0.01, retries=3, timeout=20)
REQUEST = request_for(Ask(Example("Thank you for the lift.", ("gratitude",))), "m", QUICK)
GOOD = Answer('{"reasoning": "x"}', 100)


@contextmanager
def asking(script: Script, config: AskConfig = QUICK) -> Iterator[Endpoint]:
    with serving(script), Endpoint(script.url, config) as endpoint:
        yield endpoint


def test_an_answer_comes_with_its_tokens_and_the_request_names_the_model() -> None:
    script = Script()
    with asking(script) as endpoint:
        assert endpoint.ask(REQUEST) == GOOD
    body = script.bodies[0]
    assert (body["model"], body["response_format"]) == ("m", {"type": "json_object"})
    assert "Thank you for the lift." in body["messages"][1]["content"]
    assert "gratitude" in body["messages"][1]["content"]


@pytest.mark.parametrize(
    "trouble",
    [failure(429), failure(500), failure(503), failure(408), None, (200, {}, b"<html>"), (200, {}, b'{"choices": []}')],
    ids=["429", "500", "503", "408", "dropped", "garbage", "no choice"],
)
def test_what_may_pass_is_tried_again(trouble: Reply) -> None:
    script = Script(replies=[trouble, trouble])
    with asking(script) as endpoint:
        assert endpoint.ask(REQUEST) == GOOD
        assert endpoint.retries == 2
    assert len(script.bodies) == 3


def test_what_does_not_pass_is_given_up_in_one_sentence() -> None:
    with asking(Script(answer=lambda _: failure(500))) as endpoint, pytest.raises(TeacherError, match="keeps failing"):
        endpoint.ask(REQUEST)


def test_a_slow_server_runs_into_the_timeout() -> None:
    def slow(_: dict[str, Any]) -> Reply:
        time.sleep(1.0)
        return chat("late")

    config = QUICK.model_copy(update={"timeout": 0.2, "retries": 0})
    with asking(Script(answer=slow), config) as endpoint, pytest.raises(TeacherError, match=r"no answer within 0\.2 s"):
        endpoint.ask(REQUEST)


def test_retry_after_is_honoured() -> None:
    with asking(Script(replies=[failure(429, Retry_After="0.6")])) as endpoint:
        start = time.monotonic()
        assert endpoint.ask(REQUEST) == GOOD
        assert time.monotonic() - start >= 0.6


def test_a_wait_that_is_too_long_is_reported() -> None:
    script = Script(replies=[failure(429, Retry_After="7200")])
    with asking(script) as endpoint, pytest.raises(TeacherError, match="asks to wait 7,200 s"):
        endpoint.ask(REQUEST)


def test_retry_after_is_read_in_both_its_forms() -> None:
    now = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after("Tue, 01 Jan 2030 12:00:30 GMT", now) == 30
    assert retry_after("Tue, 01 Jan 2030 11:00:00 GMT", now) == 0
    assert (retry_after("2.5"), retry_after("soon"), retry_after(None)) == (2.5, None, None)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (failure(401, "bad key sk-secret"), "refuses the key"),
        (failure(403), "refuses the key"),
        (failure(404), "not that model"),
        (failure(400, "sk-secret has no such model"), "refuses the request"),
        (failure(422), "refuses the request"),
        (failure(302), "refuses the request"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(reply: Reply, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    script = Script(answer=lambda _: reply)
    with asking(script) as endpoint, pytest.raises(TeacherError, match=message) as caught:
        endpoint.ask(REQUEST)
    assert len(script.bodies) == 1
    assert "sk-secret" not in f"{caught.value} {caught.value.hint}"
    assert script.keys == ["Bearer sk-secret"]


def test_a_request_that_is_too_large_has_no_answer_and_is_not_tried_again() -> None:
    script = Script(replies=[failure(413)])
    with asking(script) as endpoint:
        assert endpoint.ask(REQUEST) == NoAnswer("request refused")
    assert len(script.bodies) == 1


class SlowlyCounting(Endpoint):
    """Takes its time between reading and writing the count, so that another thread comes between."""

    @property  # type: ignore[override]
    def retries(self) -> int:
        count = self._count
        time.sleep(0.1)
        return count

    @retries.setter
    def retries(self, count: int) -> None:
        self._count = count


def test_no_thread_loses_the_count_of_another() -> None:
    config = QUICK.model_copy(update={"concurrency": 4})
    with serving(Script(replies=[failure(500)] * 4)) as script, SlowlyCounting(script.url, config) as endpoint:
        threads = [threading.Thread(target=endpoint.ask, args=(REQUEST,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert endpoint.retries == 4


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("HTTP://LocalHost:8080/v1/", "http://localhost:8080/v1"),
        ("https://models.example/a/v1?key=sk-secret", "https://models.example/a/v1"),
    ],
)
def test_an_endpoint_is_known_by_its_address_without_what_may_be_secret(url: str, identity: str) -> None:
    with Endpoint(url, QUICK) as endpoint:
        assert endpoint.identity == identity


def test_without_a_key_the_endpoint_that_wants_one_is_named() -> None:
    with asking(Script(models=failure(401))) as endpoint, pytest.raises(TeacherError, match="wants a key") as caught:
        endpoint.first_model()
    assert KEY in caught.value.hint


@pytest.mark.parametrize(
    ("models", "first"), [(Script().models, "first"), ((200, {}, b"no"), None), (failure(404), None)]
)
def test_the_first_model_that_is_listed(models: Reply, first: str | None) -> None:
    with asking(Script(models=models)) as endpoint:
        assert endpoint.first_model() == first


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with Endpoint(url, QUICK) as endpoint:
        with pytest.raises(TeacherError, match="does not answer"):
            endpoint.first_model()
        with pytest.raises(TeacherError, match="keeps failing: the connection broke"):
            endpoint.ask(REQUEST)


@pytest.mark.parametrize("url", ["http://", "ftp://x/v1", "nonsense", "http://user:sk-secret@127.0.0.1/v1"])
def test_a_bad_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(TeacherError) as caught:
        Endpoint(url, QUICK)
    assert "sk-secret" not in f"{caught.value} {caught.value.hint}"


def test_a_missing_count_of_tokens_is_guessed_high() -> None:
    with asking(Script(replies=[chat("x", tokens=None)])) as endpoint:
        assert endpoint.ask(REQUEST).tokens >= REQUEST.max_tokens


def test_a_stopped_endpoint_begins_nothing() -> None:
    script = Script()
    with asking(script) as endpoint:
        endpoint.stop()
        with pytest.raises(TeacherError, match="stopped"):
            endpoint.ask(REQUEST)
    assert not script.bodies


def test_requests_keep_to_the_pace() -> None:
    with asking(Script(), QUICK.model_copy(update={"per_minute": 300})) as endpoint:
        start = time.monotonic()
        for _ in range(4):
            endpoint.ask(REQUEST)
        assert time.monotonic() - start >= 0.6


def test_the_wait_grows_and_is_never_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[float, float]] = []
    uniform: Callable[[float, float], float] = lambda low, high: waits.append((low, high)) or 0.0  # noqa: E731
    monkeypatch.setattr(module.random, "uniform", uniform)
    config = QUICK.model_copy(update={"backoff": 10.0, "retries": 4})
    with asking(Script(replies=[failure(500)] * 4), config) as endpoint:
        endpoint.ask(REQUEST)
    assert waits == [(5, 10), (10, 20), (20, 40), (30, 60)]
