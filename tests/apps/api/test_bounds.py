"""What callers can cost the server: time, places and connections, none of them without an end."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from fastapi import FastAPI

from toolkit.apps.api.bodies import LONGEST_TEXT
from toolkit.apps.api.gate import MOST_REFUSED, Gate, Limits

from .conftest import JSON, eventually, holding

HEAD = b"POST /analyze_batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
LATE = HEAD % 100 + b"Expect: 100-continue\r\n\r\n"  # is told when the server begins to wait for its body


@pytest.fixture(scope="module")
def narrow(serving: Any) -> Iterator[Any]:
    """A server with one place and little time for its callers."""
    with serving("--max-queue", "1", LIMITS='{"caller_seconds": 0.5}') as running:
        yield running


@pytest.fixture(scope="module")
def keyed(serving: Any) -> Iterator[Any]:
    """A server with one place, eight connections, and a key."""
    with serving("--max-queue", "1", LIMITS='{"spare": 7}', EMOTION_LRM_API_KEY="key") as running:
        yield running


@contextmanager
def calling(server: Any, sent: bytes) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A connection on which something was sent, and what comes back; reading it to the end fails after a while."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller, caller.makefile("rb") as answer:
        caller.sendall(sent)
        yield caller, answer


def is_free(server: Any) -> bool:
    """Whether a place is free: an empty text gets that far."""
    return bool(server.analyze("").status == 422)


# Callers that take their time


def test_a_slow_body_is_given_up(narrow: Any) -> None:
    with calling(narrow, HEAD % 100 + b"\r\n{") as (_, answer):
        said = answer.read()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"slow_body"' in said
    eventually(lambda: is_free(narrow))


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHo"], ids=["nothing", "a part"])
def test_a_head_that_does_not_come_is_given_up(narrow: Any, sent: bytes) -> None:
    with calling(narrow, sent) as (_, answer):
        assert answer.read() == b""


def test_a_next_head_that_does_not_come_is_given_up(narrow: Any) -> None:
    with calling(narrow, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as (caller, answer):
        while answer.readline() != b"\r\n":
            pass
        caller.sendall(b"GET /")
        assert answer.read() == b'{"status":"ok"}'


def test_a_head_that_comes_letter_by_letter_is_given_up(narrow: Any) -> None:
    with calling(narrow, b"GET /health HTTP/1.1\r\nX: ") as (caller, answer):

        def answered() -> bool:
            caller.sendall(b"x")
            return bool(select.select([caller], [], [], 0)[0])

        eventually(answered, 10)
        assert answer.read() == b""


def test_an_answer_that_nobody_takes_is_given_up(narrow: Any) -> None:
    long = "\x7f" * LONGEST_TEXT  # comes back as six times as many bytes, more than the system would keep
    body = json.dumps({"texts": [long] * 100, "mode": "fast"}, ensure_ascii=False).encode()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", narrow.port))
        caller.sendall(HEAD % len(body) + b"\r\n" + body)
        eventually(lambda: not is_free(narrow))
        eventually(lambda: is_free(narrow), 20)
        with caller.makefile("rb") as answer:
            said = answer.read()
        assert said.startswith(b"HTTP/1.1 200 ")
        assert not said.endswith(b"0\r\n\r\n")


def test_a_caller_that_goes_away_before_its_body_has_come_leaves_its_place(narrow: Any) -> None:
    with calling(narrow, LATE) as (_, answer):
        assert answer.readline().startswith(b"HTTP/1.1 100 ")
        assert not is_free(narrow)
    eventually(lambda: is_free(narrow), 0.4)  # before the time for its body is over


def test_a_text_that_takes_too_long_is_answered_in_time(serving: Any) -> None:
    with serving("--timeout", "1") as server:
        rows = server.ask("/analyze_batch", {"texts": ["sleep 1.5", "behind it"]}).rows
        assert [row["status"] for row in rows] == ["error", "ok"]
        assert rows[0]["error"] == "The text was not read within 1 s."
        answer = server.analyze("sleep 5")
        assert (answer.status, answer.code) == (504, "timeout")


# Callers that are too many


def test_a_full_server_says_when_to_come_again(tmp_path: Path, narrow: Any) -> None:
    with holding(narrow, tmp_path / "held") as held:
        answer = narrow.analyze("text")
        assert (answer.status, answer.code) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        assert narrow.ask("/health").status == 200
    assert held.result().status == 200


def test_more_texts_than_may_wait_are_refused_in_the_same_way(narrow: Any) -> None:
    eventually(lambda: is_free(narrow))
    answer = narrow.analyze("text", lens="both")
    assert (answer.status, answer.code) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


def test_connections_have_a_bound(keyed: Any) -> None:
    with ExitStack() as many:
        for _ in range(8):
            many.enter_context(calling(keyed, b""))
        with calling(keyed, b"") as (_, answer):
            assert answer.read() == b""
    assert keyed.ask("/health").status == 200


def test_who_has_no_key_takes_no_place(keyed: Any) -> None:
    with calling(keyed, LATE) as (_, answer):
        assert answer.readline().startswith(b"HTTP/1.1 100 ")
        headers = {**JSON, "Authorization": "Bearer key"}
        assert keyed.ask("/analyze_text", {"text": "a"}, headers=headers).status == 200
        said = answer.read()  # ends because the server closes the connection
        assert b"HTTP/1.1 401 " in said
        assert b'"no_key"' in said


def test_little_is_read_of_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate alone, without a network whose buffers would blur the figures."""
    monkeypatch.setattr("toolkit.apps.api.gate.REFUSED_SECONDS", 0.2)
    scope = {"type": "http", "method": "POST", "path": "/analyze_text", "headers": []}
    sent: list[int] = []
    read = 0

    async def send(message: Any) -> None:
        sent.append(message.get("status", 0))

    async def endless() -> Any:
        nonlocal read
        read += 1 << 16
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": True}

    async def use() -> None:
        gate = Gate(FastAPI(), b"key", Limits())
        await gate(scope, endless, send)
        assert read < 2 << 20
        sent.clear()
        callers = [asyncio.create_task(gate(scope, asyncio.Event().wait, send)) for _ in range(MOST_REFUSED + 1)]
        await asyncio.sleep(0.1)
        assert sent == [401, 0]  # the one too many is not listened to
        await asyncio.gather(*callers)
        assert len(sent) == 2 * len(callers)

    asyncio.run(use())


# Callers and workers that go away


def test_work_ends_when_its_caller_is_gone(tmp_path: Path, serving: Any) -> None:
    with serving("--max-queue", "2") as server:
        with holding(server, tmp_path / "held"):
            gone, response = server.begin("/analyze_batch", {"texts": [" ", f"kill-once {tmp_path / 'mark'}"]})
            assert json.loads(response.readline())["status"] == "empty"
            assert server.analyze("").status == 503  # both are open
            response.close()
            gone.close()
            eventually(lambda: server.analyze("").status == 422)  # one is not any more
        assert server.analyze("text").status == 200
    assert not (tmp_path / "mark").exists()


def test_a_server_whose_worker_cannot_be_had_is_not_ready(tmp_path: Path, serving: Any) -> None:
    with serving("--model", f"once:{tmp_path / 'mark'}") as server, closing(server.connect()) as caller:
        assert server.ask("/ready").status == 200
        caller.request("POST", "/analyze_text", b'{"text": "kill"}', JSON)
        eventually(lambda: server.ask("/ready").status != 200)
        answer = server.ask("/ready")
        assert (answer.status, answer.code) == (503, "not_ready")
        assert int(answer.headers["retry-after"]) > 0
        assert server.ask("/health").status == 200


def test_a_batch_that_does_not_finish_is_cut_off_at_the_end(tmp_path: Path, serving: Any) -> None:
    texts = [" ", f"hold {tmp_path / 'held'}", *["text"] * 100]
    with serving("--timeout", "0.5", LIMITS='{"finish_seconds": 0.5}') as server:
        connection, response = server.begin("/analyze_batch", {"texts": texts, "mode": "fast"})
        assert json.loads(response.readline())["status"] == "empty"
        server.process.send_signal(signal.SIGTERM)
        with closing(connection), pytest.raises(IncompleteRead) as cut:
            response.read()
        assert len(cut.value.partial.splitlines()) < 10
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.said


def test_nothing_above_ended_a_server(narrow: Any, keyed: Any) -> None:
    for server in (narrow, keyed):
        assert server.ask("/ready").status == 200
        assert "Traceback" not in server.said
