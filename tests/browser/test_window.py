"""`emotion-lrm app` with a real Chromium on a real X server: a window without tabs that ends everything it began."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, expect

from toolkit.apps.page.running import answers

# Chromium as root needs --no-sandbox; the port is for this test to look into the window.
PROGRAM = """#!/bin/sh
exec {program} {root} --remote-debugging-port=0 "$@"
"""


@pytest.fixture
def display() -> Iterator[str]:
    """A virtual screen."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1000x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
        server.terminate()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "chromium"
    root = "--no-sandbox" if os.geteuid() == 0 else ""
    browser = os.environ.get("EMOTION_LRM_BROWSER", "/usr/bin/chromium")
    path.write_text(PROGRAM.format(program=browser, root=root), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder for temporary files with a short name, for Chromium puts a socket into it."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        yield Path(folder)


def test_a_window_shows_the_page_and_ends_it(
    playwright: Playwright,
    display: str,
    program: Path,
    room: Path,
    default_model_path: Path,  # noqa: ARG001
) -> None:
    environ = {**os.environ, "DISPLAY": display, "TMPDIR": str(room)}
    command = [sys.executable, "-m", "toolkit.cli", "app", "-q", "--window", "browser", "--browser", str(program)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            browser = playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{debugging_port(room, process)}")
            (page,) = browser.contexts[0].pages
            page.get_by_label("Text to read").fill("What a wonderful day!")
            page.get_by_role("button", name="Read", exact=True).click()
            expect(page.locator("article.reading")).to_contain_text("What a wonderful day!")
            assert page.evaluate("window.matchMedia('(display-mode: standalone)').matches")  # no tabs, no address bar
            refused = page.evaluate("fetch('http://example.com/').then(() => 'reached', error => String(error))")
            assert "Failed to fetch" in refused
            url = page.url.rstrip("/")
            assert answers(url)
            page.close()
            assert process.wait(60) == 0
            assert not answers(url)
            assert not list(room.iterdir())
        finally:
            process.kill()


def debugging_port(room: Path, process: subprocess.Popen[bytes]) -> int:
    """Where the browser can be looked into, which it writes into its profile."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        for told in room.glob("emotion-lrm-window-*/DevToolsActivePort"):
            lines = told.read_text(encoding="utf-8").splitlines()
            if lines:
                return int(lines[0])
        time.sleep(0.1)
    raise AssertionError(f"no window appeared; exit code {process.poll()}")
