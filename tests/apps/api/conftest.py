"""A real server on a free port of this machine, and a caller that sees exactly what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

STAND_IN = str(Path(__file__).parents[2] / "inference")
COMMAND = "import sys; from toolkit.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"
# The worker's model is the stand-in that does what its texts say; everything else is what a user gets.
WITH_STAND_IN = f"""
import functools, json, os, sys
sys.path.insert(0, {STAND_IN!r})
from toolkit.inference import supervisor
supervisor.ENTRY = "stand_in:main"
from toolkit.apps.api import gate
gate.Limits = functools.partial(gate.Limits, **json.loads(os.environ.get("LIMITS", "{{}}")))
{COMMAND}
"""
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Status, headers with lower-case names, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def code(self) -> str:
        """The code of a refusal, which must have the one shape that refusals have."""
        assert self.headers["content-type"] == "application/json"
        (told,) = self.json.values()
        assert set(told) == {"code", "message", "hint"}
        assert told["message"].endswith(".")
        assert told["hint"]
        return str(told["code"])


@dataclass
class Server:
    """A running server; ``said`` is what it wrote to standard error once it has ended."""

    process: subprocess.Popen[str]
    url: str
    errors: Path
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = int(self.url.rpartition(":")[2])

    @property
    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=120)

    def begin(self, path: str, body: object, headers: Mapping[str, str] = JSON) -> tuple[HTTPConnection, HTTPResponse]:
        """Send a request and read the head of its answer."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(body), dict(headers))
        return connection, connection.getresponse()

    def ask(
        self,
        path: str,
        body: object = None,
        *,
        raw: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] = JSON,
        method: str = "",
    ) -> Answer:
        """POST ``body`` as JSON, or ``raw`` as it is; without either GET."""
        connection = self.connect()
        sent = json.dumps(body).encode() if body is not None else raw
        method = method or ("GET" if sent is None else "POST")
        try:
            connection.request(method, path, sent, dict(headers), encode_chunked=isinstance(sent, Iterator))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def analyze(self, text: str, **options: object) -> Answer:
        return self.ask("/analyze_text", {"text": text, **options})


Serving = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Starts a server with command line arguments and an environment; by default on the stand-in.

    LIMITS in the environment is a JSON object of limits that no option sets.
    """
    return lambda *arguments, script=WITH_STAND_IN, **environ: started(
        tmp_path_factory.mktemp("server") / "stderr", script, arguments, environ
    )


@pytest.fixture(scope="module")
def server(serving: Serving) -> Iterator[Server]:
    """A server on the stand-in for all tests of a module."""
    with serving() as running:
        yield running


@contextmanager
def started(errors: Path, script: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[Server]:
    """Start a server and wait until it listens; kill it in the end if it still runs."""
    with (
        open(errors, "w", encoding="utf-8") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", script, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **environ},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), errors.read_text(encoding="utf-8")
            yield Server(process, url, errors)
        finally:
            process.kill()


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


@contextmanager
def holding(server: Any, path: Path) -> Iterator[Future[Any]]:
    """A request that is being read until the end of the block."""
    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(server.analyze, f"hold {path}")
        try:
            eventually(path.exists)
            yield held
        finally:
            path.unlink(missing_ok=True)
