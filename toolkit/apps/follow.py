"""A reading on the screen while it is written: the panel comes with the label, and the reasoning grows in it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, nullcontext
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from toolkit.apps.both import Pair
from toolkit.apps.panel import panel_of, print_divergence, print_panel
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens
from toolkit.inference.divergence import compare
from toolkit.inference.request import Wish


class Reader(Protocol):
    """What answers, as a WorkerModel does."""

    name: str
    lenses: tuple[Lens, ...]
    noise_line: float | None

    def stream(self, text: str, *, lens: Lens, taxonomy: str, mode: str) -> Generator[Analysis, None, None]: ...


def follow(console: Console, model: Reader, text: str, wish: Wish | Pair) -> Analysis | Comparison:
    """Read and show a text, through one lens, or through both one after the other and compared."""
    if isinstance(wish, Wish):
        return _follow(console, model, text, wish)
    author = _follow(console, model, text, wish.author)
    _part(console)
    reader = _follow(console, model, text, wish.reader)
    _part(console)
    comparison = compare(author, reader, model.noise_line)
    print_divergence(console, comparison.divergence)
    return comparison


def _follow(console: Console, model: Reader, text: str, wish: Wish) -> Analysis:
    stream = model.stream(text, lens=wish.lens, taxonomy=wish.taxonomy, mode=wish.mode)
    live = Live(Spinner("line", "reading"), console=console, transient=True) if console.is_terminal else nullcontext()
    with closing(stream), live as screen:
        for reading in stream:
            if screen is not None:
                screen.update(panel_of(console, reading))
    print_panel(console, reading)
    return reading


def _part(console: Console) -> None:
    if not console.is_terminal:  # where there are no frames
        console.print()
