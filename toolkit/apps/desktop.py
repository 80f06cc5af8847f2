"""`emotion-lrm app`: the page in a window of its own; when the window closes, everything ends."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings, is_quiet, model_options

LOOK_EVERY = 0.2  # seconds
SIZE = (1100, 860)
NOWHERE = "127.0.0.1:9"  # a port on which nothing listens
NO_WINDOW = 3  # what toolkit.apps.window ends with where pywebview finds nothing to draw with

_NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "brave-browser", "vivaldi",
    "microsoft-edge", "msedge",
)  # fmt: skip
_PLACES = {
    "Darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Brave Browser.app/Contents/MacOS/Brave Browser",
    ),
    "Windows": (
        r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Google\Chrome\Application\chrome.exe",
        r"%LocalAppData%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe",
        r"%ProgramFiles%\Microsoft\Edge\Application\msedge.exe",
    ),
}


@click.command()
@click.option(
    "--window",
    type=click.Choice(("auto", "webview", "browser")),
    default="auto",
    show_default=True,
    help="webview: pywebview; browser: a window of Chromium, Chrome, Edge or Brave.",
)
@click.option("--browser", metavar="FILE", help="That browser's program.  [default: EMOTION_LRM_BROWSER, else found]")
@model_options
def app(window: str, browser: str | None, settings: Settings) -> None:
    """Show the page in a window of its own; closing the window ends everything.

    \b
    emotion-lrm app
    emotion-lrm app --window browser
    """
    from toolkit.apps.page.running import serving

    webview = window == "webview" or (window == "auto" and browser is None and has_webview())
    program = None if window == "webview" else find_browser(browser, os.environ)
    if program is None and not (webview and has_webview()):
        raise no_browser() if window == "browser" else no_window()
    with serving(settings, "127.0.0.1", 0) as page:
        if not is_quiet():
            click.echo(f"The page is at {page.url}; closing its window ends it.", err=True)
        if webview:
            code = show([sys.executable, "-m", "toolkit.apps.window", page.url], page.process)
            if code != NO_WINDOW:
                _check(code)
                return
        if program is None:
            raise no_window()
        with browser_command(program, page.url) as command:
            _check(show(command, page.process))


def show(command: list[str], server: subprocess.Popen[bytes]) -> int:
    """Open a window by running ``command``, and wait until it is closed; returns the exit code of the command.

    Raises:
        EmotionLRMError: where the window cannot be opened, or the server ends before it is closed.
    """
    from toolkit.apps.page.running import end

    try:
        window = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except OSError as error:
        raise EmotionLRMError(f"Cannot run {command[0]}: {error.strerror}.", "Give another --browser.") from None
    try:
        while (code := window.poll()) is None:
            if server.poll() is not None:
                raise EmotionLRMError("The page's server ended.", "What it said stands above.")
            time.sleep(LOOK_EVERY)
        return code
    finally:
        end(window)


def _check(code: int) -> None:
    if code:
        raise EmotionLRMError(f"The window ended with exit code {code}.", "What it said stands above.")


def has_webview() -> bool:
    """Whether pywebview is installed; whether it finds something to draw with shows only when it is started."""
    return find_spec("webview") is not None


def find_browser(named: str | None, environ: Mapping[str, str]) -> str | None:
    """The program of a browser that can open a window without tabs: the one that was named, else one that is found."""
    named = named or environ.get("EMOTION_LRM_BROWSER")
    if named:
        return shutil.which(str(Path(named).expanduser())) or named
    places = [os.path.expandvars(place) for place in _PLACES.get(platform.system(), ())]
    found = (shutil.which(name, path=environ.get("PATH")) for name in _NAMES)
    return next((program for program in (*places, *found) if program and Path(program).is_file()), None)


@contextmanager
def browser_command(program: str, url: str) -> Iterator[list[str]]:
    """How to open the window, with a profile of its own that is deleted afterwards.

    With a profile of its own the program ends with its window, whatever other windows of it are open. For all but this
    machine it goes through a proxy that is not there, so that nothing that a browser does by itself reaches a network.
    """
    with tempfile.TemporaryDirectory(prefix="emotion-lrm-window-", ignore_cleanup_errors=True) as profile:
        yield [
            program, f"--app={url}", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}",
            "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--disable-extensions", "--no-pings", "--log-level=3",
            "--password-store=basic", f"--proxy-server={NOWHERE}",
        ]  # fmt: skip


def no_browser() -> EmotionLRMError:
    """What to say where no browser is found."""
    return EmotionLRMError(
        "No browser was found that can open a window of its own.",
        "Install Chromium, Chrome, Edge or Brave, or name its program with --browser.",
    )


def no_window() -> EmotionLRMError:
    """What to say where there is nothing at all to open a window with."""
    return EmotionLRMError(
        "There is nothing to open a window with.",
        'pip install ".[desktop]", or install Chromium, Chrome, Edge or Brave; emotion-lrm ui needs neither.',
    )
