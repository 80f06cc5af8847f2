"""Starting the page's server, waiting until it answers, and ending it."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from toolkit.apps.batch import wish_of
from toolkit.apps.page.theme import theme_flags
from toolkit.apps.serve import listening
from toolkit.errors import EmotionLRMError
from toolkit.settings import PREFIX, Settings, wanted_model

HERE = Path(__file__).parent
STARTING, ENDING = 60.0, 5.0  # seconds
LARGEST = 200  # MB of a file that a visitor gives


@dataclass(frozen=True, slots=True)
class Page:
    """A running server: where it listens, its address for browsers, and its process."""

    address: str
    url: str
    process: subprocess.Popen[bytes]


def check_extra() -> None:
    """See that what only the page needs is installed.

    Raises:
        EmotionLRMError: where it is not.
    """
    if find_spec("streamlit") is None:
        raise EmotionLRMError("The page needs the package streamlit.", 'pip install ".[ui]"')


@contextmanager
def serving(settings: Settings, host: str, port: int) -> Iterator[Page]:
    """The page's server, which answers when the context begins and is gone when it ends.

    Args:
        port: 0 takes a free one.

    Raises:
        UsageError: for a lens that no shipped model knows, or a taxonomy that cannot be had through it.
        EmotionLRMError: where streamlit is missing, the address cannot be had, or the server does not start.
    """
    check_extra()
    wish_of(settings)
    wanted_model(settings)
    with listening(host, port) as listener:  # Streamlit takes no socket: this one finds the port and says what is wrong
        address, port = listener.getsockname()[:2]
    with _leaving_on(signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        yield from _started(address, port, settings)


def _started(address: str, port: int, settings: Settings) -> Iterator[Page]:
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.apps.page.server", *flags(address, port)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **environment(settings)},
    )  # fmt: skip
    try:
        page = Page(address, f"http://{_reachable(address)}:{port}", process)
        _wait(page)
        yield page
    finally:
        end(process)


@contextmanager
def _leaving_on(*signals: signal.Signals) -> Iterator[None]:
    """Leave by the normal way on signals that would end this process before it could end its own."""

    def leave(*_: object) -> None:
        raise SystemExit

    before = {number: signal.signal(number, leave) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def flags(address: str, port: int) -> list[str]:
    """What Streamlit is told: where to listen, how to look, and to speak with nobody but the visitors."""
    told = {
        "server.address": address,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": LARGEST,
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": _reachable(address).strip("[]"),
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "logger.hideWelcomeMessage": "true",
        "logger.level": "error",
    }
    hosts = ["127.0.0.1", "localhost", "[::1]", "::1"] if is_loopback(address) else []
    return [
        "run", str(HERE / "app.py"), *(f"--{name}={value}" for name, value in told.items()), *theme_flags(),
        *(f"--server.allowedHosts={host}" for host in hosts),
    ]  # fmt: skip


def environment(settings: Settings) -> dict[str, str]:
    """The settings that were given, for the process of the server; files by their whole path."""
    given: Mapping[str, object] = settings.model_dump(exclude_unset=True, exclude_none=True)
    return {f"{PREFIX}{name.upper()}": _whole(name, str(value)) for name, value in given.items()}


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    return ipaddress.ip_address(address).is_loopback


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and end it where it does not listen."""
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _whole(name: str, value: str) -> str:
    from toolkit.inference.store import names_file

    is_file = name in ("model", "adapter") and names_file(value)
    return str(Path(value).absolute()) if is_file else value


def _reachable(address: str) -> str:
    """The address as a browser on this machine writes it."""
    found = ipaddress.ip_address(address)
    if found.is_unspecified:
        return "127.0.0.1" if found.version == 4 else "[::1]"
    return f"[{address}]" if found.version == 6 else address


def _wait(page: Page) -> None:
    """Wait until the server answers.

    Raises:
        EmotionLRMError: where it ends before, or does not answer for a minute.
    """
    patience = time.monotonic() + STARTING
    while time.monotonic() < patience:
        if page.process.poll() is not None:
            cause = f"The page's server ended with exit code {page.process.returncode}."
            raise EmotionLRMError(cause, "What it said stands above.")
        if answers(page.url):
            return
        time.sleep(0.1)
    raise EmotionLRMError(f"The page's server did not answer within {STARTING:.0f} seconds.", "Try again.")


def answers(url: str) -> bool:
    """Whether the page's server says that it is well."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would look for us elsewhere
    try:
        with direct.open(f"{url}/_stcore/health", timeout=5) as answer:
            return bool(answer.read() == b"ok")
    except OSError:
        return False
