"""The picture of ``quantize --all``: how fast each file type is, and what it has lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.files import replacing
from toolkit.apps.throughput import PROMPT_TOKENS, WRITTEN_TOKENS
from toolkit.corpora.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from toolkit.apps.quantize import Measured

_WIDTH, _HEIGHT = 0.14, 0.045  # of the axes: the room that a name takes


def draw(found: Sequence[Measured], max_loss: float, judged_by: str, path: Path) -> None:
    """Write a PNG: speed to the right, top-1 accuracy against the source's upwards; what is refused is orange."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.add_subplot()
    for one in found:
        colour = BLUE if one.within(max_loss) else ORANGE
        axes.errorbar(
            one.speed.texts, -100 * one.loss.top1, 100 * one.loss.noise, fmt="none", ecolor=GREY, elinewidth=1, zorder=1
        )
        axes.scatter(one.speed.texts, -100 * one.loss.top1, s=one.n_bytes / 2e6, color=colour, alpha=0.8, zorder=2)
    axes.axhline(-100 * max_loss, color=ORANGE, linewidth=1, linestyle="--", zorder=0)
    axes.annotate(
        f"refused below −{100 * max_loss:g}", (0.995, -100 * max_loss), xycoords=("axes fraction", "data"),
        xytext=(0, -3), textcoords="offset points", ha="right", va="top", color=ORANGE, fontsize=8,
    )  # fmt: skip
    axes.margins(x=0.12, y=0.12)
    _write_names(axes, found)
    axes.set_title(f"Speed and loss of the file types, on {judged_by}", loc="left", fontsize=11)
    axes.set_xlabel(
        f"texts a second ({PROMPT_TOKENS} tokens read and {WRITTEN_TOKENS} written each); the area is the file's size"
    )
    axes.set_ylabel("top-1 accuracy against the source, in points (± standard error)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _write_names(axes: Any, found: Sequence[Measured]) -> None:
    """Write each name right of its point, moved upwards where it would cover another."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    wide, tall = _WIDTH * (right - left), _HEIGHT * (high - low)
    taken: list[tuple[float, float]] = []
    for one in sorted(found, key=lambda one: -one.loss.top1):
        place = -100 * one.loss.top1
        for x, y in sorted(taken, key=lambda name: name[1]):
            if abs(x - one.speed.texts) < wide and abs(y - place) < tall:
                place = y + tall
        taken.append((one.speed.texts, place))
        axes.annotate(
            one.file_type, (one.speed.texts, place), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8
        )
