"""Ask a server of llama.cpp's kind over HTTP; start one on loopback: `llama-server`, else llama-cpp-python's own."""

import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from convert.errors import ConvertError

_PATIENCE = 300.0  # seconds for weights to load, or for one answer, on a busy machine
_PYTHON_SERVER = ("llama_cpp.server", "sse_starlette", "starlette_context", "pydantic_settings", "uvicorn")
_MAX_TOKENS = 256
# Loopback is never reached through a proxy, whatever the environment says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Question:
    """One text for a server: as a chat message, and as the prompt that the chat template should make of it."""

    text: str
    prompt: str
    grammar: str
    system: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server wrote, and the endpoint that it wrote it through."""

    content: str
    endpoint: str


class ServerError(ConvertError):
    """A server that is not there, does not start, or answers with an error."""


@contextlib.contextmanager
def serving(model: Path, threads: int) -> Iterator[tuple[str, str]]:
    """Serve a GGUF on a free port of the loopback interface; yield the server's name and its address.

    Raises:
        ServerError: no server is installed, or it does not start.
    """
    port = _free_port()
    name, command = server_command(model, port, threads)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(url, name, process, log)
            yield name, url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def server_command(model: Path, port: int, threads: int) -> tuple[str, list[str]]:
    """Return the name and the command line of the server that this machine has.

    Raises:
        ServerError: it has none.
    """
    where = ["--host", "127.0.0.1", "--port", str(port)]
    beside = shutil.which("llama-server", path=str(Path(sys.executable).parent))
    if found := shutil.which("llama-server") or beside:
        return "llama-server", [found, "-m", str(model), *where, "-c", "2048", "-np", "1", "-t", str(threads)]
    if all(_importable(name) for name in _PYTHON_SERVER):
        options = ["--model", str(model), *where, "--n_ctx", "2048", "--n_threads", str(threads)]
        return "llama_cpp.server", [sys.executable, "-m", "llama_cpp.server", *options]
    raise ServerError(
        "There is no llama-server on this machine.",
        'Put llama.cpp\'s llama-server on the PATH, or: pip install "llama-cpp-python[server]"',
    )


def require_server(url: str) -> None:
    """Refuse to begin where nobody answers.

    Raises:
        ServerError: the server cannot be reached or refuses.
    """
    _send(urllib.request.Request(f"{url}/v1/models"))


def ask(url: str, question: Question) -> Answer:
    """Ask through ``/v1/chat/completions``, and where that brings nothing through ``/v1/completions``.

    Raises:
        ServerError: the server cannot be reached or refuses.
    """
    system = [{"role": "system", "content": question.system}] if question.system else []
    wish = {"temperature": 0, "max_tokens": _MAX_TOKENS, "grammar": question.grammar}
    messages = [*system, {"role": "user", "content": question.text}]
    choice = _post(f"{url}/v1/chat/completions", {"messages": messages, **wish})["choices"][0]
    if content := choice["message"].get("content"):
        return Answer(content, "/v1/chat/completions")
    choice = _post(f"{url}/v1/completions", {"prompt": question.prompt, **wish})["choices"][0]
    return Answer(choice["text"], "/v1/completions")


def emotion_of(content: str) -> str | None:
    """Return the emotion that an answer names; None where it is no answer of ours."""
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer.get("emotion") if isinstance(answer, dict) else None


def _post(url: str, body: dict[str, Any]) -> Any:
    return _send(urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))


def _send(request: urllib.request.Request) -> Any:
    url = request.full_url
    try:
        with _OPENER.open(request, timeout=_PATIENCE) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        told = error.read().decode("utf-8", "replace")[:300]
        raise ServerError(f"{url} answered {error.code}: {told}", "Is it a server of llama.cpp's kind?") from error
    except (OSError, ValueError) as error:
        raise ServerError(
            f"{url} cannot be asked: {error}", "Is the server running, and is the address right?"
        ) from error


def _wait_until_ready(url: str, name: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), _OPENER.open(f"{url}/v1/models", timeout=5):
            return
        time.sleep(0.2)
    log.seek(0)
    last = (log.read().decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
    raise ServerError(f"{name} does not start: {last[:300]}", "Start it yourself and give its address: --prove URL")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
