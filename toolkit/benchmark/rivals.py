"""The other ways to the same answer: llama-cpp-python's completion with a schema, and llama.cpp's own server."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from toolkit.contract.answer import json_schema
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame
from toolkit.errors import ModelError

ORDINARY, SERVER = "llama-cpp-python, one by one", "llama-server, 8 slots"
SLOTS, _ROOM, _MOST = 8, 512, 200  # slots of the server, tokens each may take, tokens of an answer
_PATIENCE = 120.0  # seconds until the server has to listen


@contextlib.contextmanager
def ordinary(path: Path, frame: Frame, threads: int) -> Iterator[Any]:
    """A function (texts, mode) -> answers through the high-level class, greedily, one text after the other."""
    from llama_cpp import Llama, LlamaGrammar

    model = Llama(str(path), n_ctx=_ROOM, n_threads=threads, n_threads_batch=threads, verbose=False)
    grammars = {
        mode: LlamaGrammar.from_json_schema(json.dumps(json_schema(Lens.AUTHOR, mode == "explain")), verbose=False)
        for mode in ("fast", "explain")
    }

    def answer(texts: Sequence[str], mode: str) -> list[str]:
        return [
            model.create_completion(
                frame.render(text), grammar=grammars[mode], temperature=0.0, max_tokens=_MOST
            )["choices"][0]["text"]
            for text in texts
        ]  # fmt: skip

    try:
        yield answer
    finally:
        model.close()


def find_server() -> str | None:
    """The llama-server on the PATH, or None."""
    return shutil.which("llama-server")


@contextlib.contextmanager
def served(program: str, path: Path, frame: Frame, threads: int) -> Iterator[Any]:
    """A function (texts, mode) -> answers of llama.cpp's server with eight slots, asked by eight clients over HTTP.

    Raises:
        ModelError: where the server does not start.
    """
    port = _free_port()
    command = [program, "--model", str(path), "--port", str(port), "--host", "127.0.0.1"]
    command += ["--parallel", str(SLOTS), "--ctx-size", str(SLOTS * _ROOM), "--threads", str(threads)]
    command += ["--threads-batch", str(threads), "--gpu-layers", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(job: tuple[str, str]) -> str:
        text, mode = job
        schema = json_schema(Lens.AUTHOR, mode == "explain")
        asked = {"prompt": frame.render(text), "json_schema": schema, "temperature": 0.0, "n_predict": _MOST}
        return str(json.loads(_request(port, "POST", "/completion", asked))["content"])

    try:
        _await_health(process, port)
        with ThreadPoolExecutor(SLOTS) as clients:
            yield lambda texts, mode: list(clients.map(ask, [(text, mode) for text in texts]))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_health(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException, ModelError):
            _request(port, "GET", "/health", None)
            return
        time.sleep(0.1)
    raise ModelError("llama-server does not start.", "Take it off the PATH, or see what it says by itself.")


def _request(port: int, method: str, where: str, body: dict[str, Any] | None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        raw = None if body is None else json.dumps(body).encode()
        connection.request(method, where, raw, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ModelError(f"llama-server answered {answer.status}: {content[:200].decode('utf-8', 'replace')}.", "")
        return content
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
