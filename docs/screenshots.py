"""Take the pictures of the page that the README shows: `make screenshots`. Needs the extra dev and a Chromium."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from toolkit.apps.page.running import serving
from toolkit.contract.lens import Lens
from toolkit.errors import UsageError
from toolkit.inference.store import default_name
from toolkit.settings import Settings

IMAGES = Path(__file__).parent / "images"
TEXT = "Somebody is walking up and down outside the tent, and there is nobody else for miles."
WIDTH, PATIENCE = 1180, 300_000  # pixels; ms, for the first reading may build the model


def settings() -> Settings:
    """Both lenses where a model that ships knows them."""
    try:
        default_name(tuple(Lens))
    except UsageError:
        return Settings()
    return Settings(lens="both")


def take(browser: Browser, url: str, scheme: str) -> None:
    """Read the text and save what is to be seen then."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 1600}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_label("Text to read").fill(TEXT)
    page.get_by_role("button", name="Read", exact=True).click()
    page.get_by_role("button", name="Download as JSON").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # colours of buttons fade
    lowest = page.locator("article.reading").last.bounding_box()
    assert lowest is not None
    height = lowest["y"] + lowest["height"] + 12  # what is said below the readings is left out
    page.screenshot(path=IMAGES / f"page-{scheme}.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    page.close()


def main() -> None:
    """Write docs/images/page-light.png and page-dark.png."""
    IMAGES.mkdir(exist_ok=True)
    program = os.environ.get("EMOTION_LRM_BROWSER", "/usr/bin/chromium")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with serving(settings(), "127.0.0.1", 0) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        for scheme in ("light", "dark"):
            take(browser, page.url, scheme)
        browser.close()


if __name__ == "__main__":
    main()
