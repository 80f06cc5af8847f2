"""`emotion-lrm ui`: where it listens, what its server is told, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolkit.apps.page import running
from toolkit.apps.page.theme import DARK, LIGHT
from toolkit.cli import main
from toolkit.settings import Settings

# Whoever reaches for another machine is refused and named, in the server too: Python runs sitecustomize at its start.
LOOPBACK_ONLY = """
import sys

def watch(event, args):
    told = args[1] if event == "socket.connect" else args[0] if event.startswith("socket.get") else None
    host = told[0] if isinstance(told, tuple) else told
    if isinstance(host, str) and host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0", ""):
        sys.stderr.write(f"NETWORK: {event} {args}\\n")
        raise OSError("no network here")

sys.addaudithook(watch)
"""


@contextmanager
def started(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`emotion-lrm ui` on a free port, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli", "ui", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr.read() if process.stderr else ""
    return url


def gone(url: str) -> bool:
    """Whether nothing listens there any more."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


def eventually(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_command_however_it_ends(number: signal.Signals) -> None:
    with started("-q") as process:
        url = url_of(process)
        assert running.answers(url)
        process.send_signal(number)
        code = process.wait(30)
        assert code == {signal.SIGINT: 130, signal.SIGTERM: 0, signal.SIGKILL: -9}[number]
        eventually(lambda: gone(url))


def test_the_server_reaches_for_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOOPBACK_ONLY, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with started(PYTHONPATH=path) as process:
        url = url_of(process)
        host, _, port = url.removeprefix("http://").partition(":")
        for origin, name in (("https://example.com", f"127.0.0.1:{port}"), (url, "rebound.example.com")):
            with socket.create_connection((host, int(port)), 30) as client:
                client.sendall(
                    f"GET /_stcore/stream HTTP/1.1\r\nHost: {name}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                status = client.recv(100).split()[1]
            assert status == b"403", (origin, name, status)
        process.terminate()
        said = process.stderr.read() if process.stderr else ""
    assert "NETWORK" not in said
    assert "Ctrl-C ends it." in said


def test_the_watch_over_the_network_would_see_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOOPBACK_ONLY, encoding="utf-8")
    code = "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert "NETWORK" in done.stderr


def test_what_streamlit_is_told() -> None:
    told = running.flags("127.0.0.1", 1234)
    assert told[0] == "run"
    assert Path(told[1]).is_file()
    for flag in (
        "--server.address=127.0.0.1", "--server.port=1234", "--server.headless=true",
        "--browser.gatherUsageStats=false", "--client.showErrorDetails=none", "--server.allowedHosts=127.0.0.1",
        f"--theme.light.textColor={LIGHT['textColor']}", f"--theme.dark.backgroundColor={DARK['backgroundColor']}",
    ):  # fmt: skip
        assert flag in told
    assert not [flag for flag in running.flags("192.168.1.5", 1) if "allowedHosts" in flag]


def test_streamlit_knows_every_option() -> None:
    from streamlit import config

    names = {flag[2:].partition("=")[0] for flag in running.flags("127.0.0.1", 1)[2:]}
    assert len(names) > 15
    for name in names:
        config.get_option(name)  # raises for an unknown one


def test_settings_travel_in_the_environment() -> None:
    settings = Settings(lens="author", threads=2, model="some/model.gguf")
    assert running.environment(settings) == {
        "EMOTION_LRM_LENS": "author", "EMOTION_LRM_THREADS": "2",
        "EMOTION_LRM_MODEL": str(Path("some/model.gguf").absolute()),
    }  # fmt: skip
    assert running.environment(Settings(model="emotion-smollm2-135m")) == {"EMOTION_LRM_MODEL": "emotion-smollm2-135m"}
    assert running.environment(Settings()) == {}


def test_without_streamlit_the_line_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "find_spec", lambda _: None)
    assert main(["ui"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "Error: The page needs the package streamlit.",
        'pip install ".[ui]"',
    ]


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 1
    assert f"Cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--taxonomy", "empathetic"], "The lens author cannot answer in the taxonomy 'empathetic'."),
        (["--port", "99999"], "99999"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_starts(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", *args]) == 2
    assert told in capsys.readouterr().err


def test_who_listens_for_others_is_warned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(subprocess.Popen, "wait", _end_at_once(subprocess.Popen.wait))
    assert main(["ui", "--host", "0.0.0.0", "--port", "0", "--browser"]) == 1
    said = capsys.readouterr()
    assert "Everybody who reaches this machine can use the page" in said.err
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", said.out)
    assert opened == [said.out.strip()]


def _end_at_once(wait: Callable[..., int]) -> Callable[..., int]:
    """A server that is killed as soon as somebody waits for its end."""

    def ended(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None:
            process.kill()
        return wait(process, timeout)

    return ended


def test_a_server_that_does_not_start_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "flags", lambda *_: ["run", "no-such-script.py"])
    assert main(["ui", "--port", "0"]) == 1
    assert "The page's server ended with exit code" in capfd.readouterr().err


def test_addresses_as_browsers_write_them() -> None:
    for address, written in (("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")):
        assert running._reachable(address) == written
