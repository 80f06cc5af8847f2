"""`emotion-lrm app`: the window's end ends everything, and everything's end ends the window."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolkit.apps import desktop
from toolkit.cli import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in for the browser is a script with a #! line")

# Says how it was called, tells whether the page answers, and stays until it is told to go or its file is removed.
BROWSER = """#!{python}
import os, sys, time, urllib.request
from pathlib import Path
url = next(a.partition("=")[2] for a in sys.argv if a.startswith("--app="))
profile = next(a.partition("=")[2] for a in sys.argv if a.startswith("--user-data-dir="))
with urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(url + "/_stcore/health") as answer:
    health = answer.read().decode()
Path({note!r}).write_text("\\n".join([str(os.getpid()), url, profile, health, *sys.argv[1:]]))
while Path({note!r}).exists():
    time.sleep(0.02)
sys.exit({code})
"""


class Window:
    """The stand-in browser of one test, and what it wrote down when it was opened."""

    def __init__(self, folder: Path, code: int = 0) -> None:
        self.note, self.program = folder / "opened", folder / "browser"
        self.program.write_text(BROWSER.format(python=sys.executable, note=str(self.note), code=code), encoding="utf-8")
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Until it is open."""
        eventually(lambda: (self.note.exists() and self.note.read_text()) or process.poll() is not None, 60)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        self.pid, self.url, self.profile, self.health, *self.arguments = self.note.read_text().splitlines()

    def close(self) -> None:
        """As a person closes it."""
        self.note.unlink()

    @property
    def is_open(self) -> bool:
        try:
            return Path("/proc", self.pid, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False


@pytest.fixture
def window(tmp_path: Path) -> Window:
    return Window(tmp_path)


@contextmanager
def opened(window: Window, *arguments: str, named: bool = True) -> Iterator[subprocess.Popen[str]]:
    browser = ["--browser", str(window.program)] if named else []
    command = [sys.executable, "-m", "toolkit.cli", "app", *browser, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            window.wait(process)
            yield process
        finally:
            process.kill()
            window.note.unlink(missing_ok=True)


def gone(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


def eventually(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_closing_the_window_ends_everything(window: Window) -> None:
    with opened(window) as process:
        assert window.health == "ok"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", window.url)
        assert f"--proxy-server={desktop.NOWHERE}" in window.arguments
        assert Path(window.profile).is_dir()
        window.close()
        assert process.wait(30) == 0
        assert gone(window.url)
        assert not Path(window.profile).exists()
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_window_and_server(window: Window, number: signal.Signals) -> None:
    with opened(window, "-q") as process:
        process.send_signal(number)
        assert process.wait(30) == (130 if number == signal.SIGINT else 0)
        assert gone(window.url)
        eventually(lambda: not window.is_open)
        assert not Path(window.profile).exists()


def test_the_server_s_end_ends_the_window_and_is_said(window: Window) -> None:
    with opened(window, "-q") as process:
        os.kill(server_of(process.pid), signal.SIGKILL)
        assert process.wait(30) == 1
        eventually(lambda: not window.is_open)
        assert process.stderr is not None
        assert "Error: The page's server ended." in process.stderr.read()


def server_of(parent: int) -> int:
    """The child that serves the page."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (server,) = (c for c in children if b"toolkit.apps.page.server" in Path(f"/proc/{c}/cmdline").read_bytes())
    return int(server)


def test_killed_without_a_word_it_leaves_no_server(window: Window) -> None:
    with opened(window) as process:
        process.kill()
        process.wait(30)
        eventually(lambda: gone(window.url))


def test_a_browser_that_fails_is_said(tmp_path: Path) -> None:
    window = Window(tmp_path, code=7)
    with opened(window, "-q") as process:
        window.close()
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "The window ended with exit code 7." in process.stderr.read()


def test_a_browser_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["app", "--browser", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "There is no program" in said
    assert "--browser" in said


def test_without_any_window_the_next_step_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(desktop, "find_browser", lambda *_: None)
    monkeypatch.setattr(desktop, "has_webview", lambda: False)
    assert main(["app"]) == 1
    assert 'pip install ".[desktop]"' in capsys.readouterr().err
    assert main(["app", "--window", "browser"]) == 1
    assert "No browser was found" in capsys.readouterr().err


def test_a_browser_is_found_by_name_on_the_path(tmp_path: Path) -> None:
    program = tmp_path / "google-chrome"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert desktop.find_browser(None, {"PATH": str(tmp_path)}) == str(program)
    assert desktop.find_browser(None, {"PATH": ""}) is None
    assert desktop.find_browser(None, {"EMOTION_LRM_BROWSER": str(program), "PATH": ""}) == str(program)
    assert desktop.find_browser(str(program), {"EMOTION_LRM_BROWSER": "another"}) == str(program)


@pytest.fixture
def nothing_to_draw_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started finds no screen and neither GTK nor Qt: Python runs sitecustomize at its start."""
    if sys.platform != "linux":
        pytest.skip("elsewhere pywebview draws with what the system has")
    hide = "import sys\nsys.modules.update(gi=None, qtpy=None)\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_to_draw_with")
def test_pywebview_that_has_nothing_to_draw_with_says_so() -> None:
    command = [sys.executable, "-m", "toolkit.apps.window", "http://127.0.0.1:9"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.wait(60) == desktop.NO_WINDOW
        assert process.stderr is not None
        (line,) = process.stderr
        assert line.startswith("pywebview: You must have either QT or GTK")


@pytest.mark.usefixtures("nothing_to_draw_with")
def test_where_pywebview_has_nothing_to_draw_with_the_browser_takes_over(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTION_LRM_BROWSER", str(window.program))
    with opened(window, named=False) as process:
        assert window.health == "ok"
        window.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "pywebview: You must have" in process.stderr.read()
