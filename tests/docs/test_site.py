"""The site: it builds without a warning, and no page wants anything from another host."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
FETCHED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "prefetch", "dns-prefetch", "manifest", "modulepreload"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


class Loads(HTMLParser):
    """Collects the addresses that a browser asks for when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADED and given.get(LOADED[tag]):
            self.found.append(given[LOADED[tag]] or "")
        if tag == "link" and FETCHED_LINKS & {*(given.get("rel") or "").split()}:
            self.found.append(given.get("href") or "")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    loads = Loads()
    for page in pages:
        loads.feed(page.read_text(encoding="utf-8"))
    styles = [path.read_text(encoding="utf-8") for pattern in ("*.css", "*.svg") for path in site.rglob(pattern)]
    loads.found += [address for style in styles for address in re.findall(r"url\(\s*[\"']?([^)\"']+)", style)]
    assert loads.found
    assert not [address for address in loads.found if urlsplit(address).netloc]


def test_the_site_holds_what_it_promises(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("EmotionModel", "WorkerModel", "AsyncEmotionModel", "Analysis", "UsageError"):
        assert f">{name}</span>" in python, name
    assert "analyze_many" in python
    assert (site / "search" / "search_index.json").stat().st_size > 10_000
    assert not list(site.rglob("*.py"))


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served on this machine."""
    serve = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.browser
def test_a_browser_asks_nobody_else_and_finds_what_is_searched_for(site: Path, address: str, chromium: Any) -> None:
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(site.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(site).as_posix()}")
    page.goto(f"{address}/index.html")
    page.get_by_role("textbox", name="Search").press_sequentially("abstaining")
    page.locator(".md-search-result__link", has_text="numbers come from").first.click()
    page.wait_for_url("**/probabilities.html*")
    page.close()
    assert len(asked) > 100
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
