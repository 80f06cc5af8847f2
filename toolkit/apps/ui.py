"""`emotion-lrm ui`: the page in a browser, on this machine unless told otherwise."""

from __future__ import annotations

import sys
import webbrowser

import click

from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings, is_quiet, model_options


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8501, show_default=True, metavar="P", help="0 takes a free one."
)
@click.option("--browser/--no-browser", default=None, help="Open it in the browser.  [default: on a terminal]")
@model_options
def ui(host: str, port: int, browser: bool | None, settings: Settings) -> None:
    """Show a page: write a text or give a file, and see how it is read.

    The address is printed to standard output once the page answers there. --lens, --taxonomy and --mode are what is
    chosen on the page at first. Nothing is fetched from a network, and no statistic leaves the machine.

    \b
    emotion-lrm ui
    emotion-lrm ui --port 0 --no-browser
    emotion-lrm ui --model emotion-smollm2-135m-q4_0
    """
    from toolkit.apps.page.running import is_loopback, serving

    with serving(settings, host, port) as page:
        if not is_loopback(page.address):
            click.echo("Everybody who reaches this machine can use the page; nothing is encrypted.", err=True)
        click.echo(page.url)
        if not is_quiet():
            click.echo("Ctrl-C ends it.", err=True)
        if sys.stdout.isatty() if browser is None else browser:
            webbrowser.open(page.url)
        if page.process.wait():
            raise EmotionLRMError("The page's server ended.", "What it said stands above.")
