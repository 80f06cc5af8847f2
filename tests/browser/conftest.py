"""A real headless Chromium in front of the page: on the default model, and on stand-ins that know both lenses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

STAND_IN = str(Path(__file__).parents[1] / "inference")
# The page believes that its model knows both lenses, and its workers run the stand-in, which does.
WITH_BOTH_LENSES = f"""
import sys
sys.path.insert(0, {STAND_IN!r})
from toolkit.apps.page import choice, server, shelf
from toolkit.inference import supervisor
supervisor.ENTRY = "stand_in:main"
choice.known_lenses = lambda _: ("author", "reader", "both")
shelf.wanted_model = lambda _: "two"
server.main()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def page_url(default_model_path: Path) -> Iterator[str]:  # noqa: ARG001
    """The page of `emotion-lrm ui` on the default model."""
    command = [sys.executable, "-m", "toolkit.cli", "ui", "--port", "0", "-q", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield url
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="session")
def both_lenses_url() -> Iterator[str]:
    """The page on stand-ins that know both lenses."""
    from toolkit.apps.page import running
    from toolkit.apps.serve import listening
    from toolkit.settings import Settings

    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    environ = {**os.environ, **running.environment(Settings(lens="both"))}
    command = [sys.executable, "-c", WITH_BOTH_LENSES, *running.flags("127.0.0.1", port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ) as process:
        page = running.Page("127.0.0.1", f"http://127.0.0.1:{port}", process)
        running._wait(page)
        yield page.url
        running.end(process)


Visit = Callable[..., Page]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens an address in a fresh profile; in the end, nothing may have left this machine and no script have failed."""
    opened: list[tuple[Page, list[str], list[str]]] = []

    def open_page(url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        page = context.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(120_000)  # ms: the first reading loads the model
        page.goto(url)
        page.get_by_label("Text to read").wait_for()
        opened.append((page, asked, errors))
        return page

    yield open_page
    for page, asked, errors in opened:
        page.context.close()
        assert len(asked) > 10
        assert {host_of(url) for url in asked} <= {"127.0.0.1", None}, asked
        assert not errors


def host_of(url: str) -> str | None:
    """The host that a request goes to; None for what needs none."""
    parts = urlsplit(url)
    return None if parts.scheme in ("data", "blob", "about") else parts.hostname
