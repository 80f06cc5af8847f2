"""A real HTTP server on loopback that answers as a chat endpoint does, or as badly as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes] | None  # None: the connection is dropped


def chat(content: str | None, tokens: int | None = 100) -> Reply:
    """A well-formed answer of a chat endpoint."""
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    if tokens is not None:
        body["usage"] = {"total_tokens": tokens}
    return 200, {}, json.dumps(body).encode()


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as such endpoints report it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message}}).encode()


def narrow(limit: int, answer: Callable[[dict[str, Any]], Reply]) -> Callable[[dict[str, Any]], Reply]:
    """``answer``, but as of a llama-server with little context: it refuses a text of more than ``limit`` characters."""

    def reply(body: dict[str, Any]) -> Reply:
        if len(body["messages"][1]["content"].split("\n")[0]) <= limit + len("Text: "):
            return answer(body)
        return failure(400, "the request exceeds the available context size, try increasing it")

    return reply


@dataclass
class Script:
    """What the server does and what it has seen.

    Attributes:
        replies: taken one after the other; afterwards ``answer`` makes them.
        answer: from the body of a request to its reply.
        models: what ``GET /v1/models`` replies.
    """

    replies: list[Reply] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], Reply] = lambda _: chat('{"reasoning": "x"}')
    models: Reply = (200, {}, b'{"data": [{"id": "first"}]}')
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict[str, Any]) -> Reply:
        """What to send for ``body``."""
        with self.lock:
            self.bodies.append(body)
            if self.replies:
                return self.replies.pop(0)
        return self.answer(body)


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """Run the server while the context lasts; ``script.url`` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.keys.append(self.headers.get("Authorization"))
            self._send(script.models)

        def do_POST(self) -> None:
            script.keys.append(self.headers.get("Authorization"))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(script.reply(body) if self.path == "/v1/chat/completions" else failure(404))

        def _send(self, reply: Reply) -> None:
            if reply is None:
                self.close_connection = True
                self.connection.close()
                return
            status, headers, content = reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def finish(self) -> None:
            if not self.close_connection or not self.connection._closed:  # type: ignore[attr-defined]
                super().finish()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
