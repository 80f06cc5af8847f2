"""The picture of ``quantize --all``: how fast each file type is, and what it has lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.files import replacing
from toolkit.apps.throughput import PROMPT_TOKENS, WRITTEN_TOKENS
from toolkit.corpora.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from toolkit.apps.quality import Bounds
    from toolkit.apps.quantize import Measured

_WIDTH, _HEIGHT = 0.14, 0.045  # of the axes: the room that a name takes
_NEAR = 5.0  # points of accuracy around 0 that are drawn to scale; farther ones by their logarithm
_TICKS = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10)


def draw(found: Sequence[Measured], bounds: Bounds, judged_by: str, path: Path) -> None:
    """Write a PNG: speed to the right, top-1 accuracy against the source's upwards; what is refused is orange."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.add_subplot()
    for one in found:
        colour = BLUE if one.loss.within(bounds) else ORANGE
        axes.errorbar(
            one.speed.texts, -100 * one.loss.top1, 100 * one.loss.noise, fmt="none", ecolor=GREY, elinewidth=1, zorder=1
        )
        axes.scatter(one.speed.texts, -100 * one.loss.top1, s=one.n_bytes / 2e6, color=colour, alpha=0.8, zorder=2)
    bound = f"refused below −{100 * bounds.top1:g}, or in this colour for its macro-F1"
    axes.axhline(-100 * bounds.top1, color=ORANGE, linewidth=1, linestyle="--", zorder=0, label=bound)
    axes.margins(x=0.12, y=0.12)
    axes.set_yscale("symlog", linthresh=_NEAR)  # one type that loses all must not press the others onto one line
    low, high = axes.get_ylim()
    axes.set_yticks([points for points in _TICKS if low <= points <= high])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"Speed and loss of the file types, on {judged_by}", loc="left", fontsize=11)
    axes.set_xlabel(
        f"texts a second ({PROMPT_TOKENS} tokens read and {WRITTEN_TOKENS} written each); the area is the file's size"
    )
    axes.set_ylabel("top-1 accuracy against the source, in points (± standard error)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.draw_without_rendering()  # lays the axes out: names are placed by fractions of them
    _write_names(axes, found)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _write_names(axes: Any, found: Sequence[Measured]) -> None:
    """Write each name right of its point, moved to the nearest place where it covers no other name."""
    to_fraction = axes.transData + axes.transAxes.inverted()
    taken: list[tuple[float, float]] = []
    for one in sorted(found, key=lambda one: -one.loss.top1):
        x, y = to_fraction.transform((one.speed.texts, -100 * one.loss.top1))
        places = (y + sign * steps * _HEIGHT for steps in range(len(found) + 1) for sign in (1, -1))
        place = next(p for p in places if all(abs(x - u) >= _WIDTH or abs(p - v) >= _HEIGHT for u, v in taken))
        taken.append((x, place))
        axes.annotate(
            one.file_type, (x, place), xycoords="axes fraction", xytext=(9, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
