"""A server of llama.cpp's kind: started on loopback and spoken to over HTTP.

`llama-server` where there is one, else llama-cpp-python's own.
"""

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
from pathlib import Path
from typing import IO, Any

from convert.errors import ConvertError

_PATIENCE = 300.0  # seconds for weights to load, or for one answer, on a busy machine
_PYTHON_SERVER = ("llama_cpp.server", "sse_starlette", "starlette_context", "pydantic_settings", "uvicorn")
# Loopback is never reached through a proxy, whatever the environment says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerError(ConvertError):
    """A server that is not there, does not start, or answers with an error."""


def find_server() -> str | None:
    """The llama-server on the PATH or beside this Python, or None."""
    beside = shutil.which("llama-server", path=str(Path(sys.executable).parent))
    return shutil.which("llama-server") or beside


@contextlib.contextmanager
def serving(model: Path, threads: int, slots: int = 1, cells: int = 2048) -> Iterator[tuple[str, str]]:
    """Serve a GGUF on a free port of the loopback interface; yield the server's name and its address.

    Args:
        slots: answers that are written at the same time; only `llama-server` writes more than one.
        cells: tokens of context, over all slots.

    Raises:
        ServerError: no server is installed, or it does not start.
    """
    port = _free_port()
    name, command = server_command(model, port, threads, slots, cells)
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


def server_command(model: Path, port: int, threads: int, slots: int = 1, cells: int = 2048) -> tuple[str, list[str]]:
    """Return the name and the command line of the server that this machine has.

    Raises:
        ServerError: it has none.
    """
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if found := find_server():
        options = ["-c", str(cells), "-np", str(slots), "-t", str(threads), "-tb", str(threads), "-ngl", "0"]
        return "llama-server", [found, "-m", str(model), *where, *options]
    if all(_importable(name) for name in _PYTHON_SERVER):
        options = ["--model", str(model), *where, "--n_ctx", str(cells), "--n_threads", str(threads)]
        return "llama_cpp.server", [sys.executable, "-m", "llama_cpp.server", *options]
    raise ServerError(
        "There is no llama-server on this machine.",
        'Put llama.cpp\'s llama-server on the PATH, or: pip install "llama-cpp-python[server]"',
    )


def post(url: str, body: dict[str, Any]) -> Any:
    """The JSON that a server answers to ``body``.

    Raises:
        ServerError: it cannot be reached or refuses.
    """
    return send(urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))


def send(request: urllib.request.Request) -> Any:
    """The JSON that a server answers to a request.

    Raises:
        ServerError: it cannot be reached or refuses.
    """
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
