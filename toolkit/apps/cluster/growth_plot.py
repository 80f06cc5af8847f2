"""The picture of the growth: how long, and how many rows a second, with ever more rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convert.files import replacing
from toolkit.apps.cluster.extrapolation import Run, series
from toolkit.corpora.figures import BLUE, ORANGE, require_matplotlib

_COLOURS = {"local": BLUE, "ray": ORANGE}
_STYLES = ("--", "-", ":", "-.")


def draw_growth(runs: Sequence[Run], path: Path) -> None:
    """Write the picture as a PNG.

    Raises:
        EmotionLRMError: without matplotlib.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = sorted({run.workers for run in runs})
    for (engine, workers), line in series(runs).items():
        rows = [run.rows for run in line]
        look = {"color": _COLOURS[engine], "linestyle": _STYLES[counts.index(workers) % 4], "marker": "o"}
        name = f"{engine}, {workers} worker{'s' * (workers > 1)}"
        left.plot(rows, [run.seconds for run in line], label=name, **look)
        right.plot(rows, [run.rows / run.seconds for run in line], **look)
    left.set_yscale("log")
    left.set_ylabel("seconds, from the command to the file")
    right.set_ylabel("rows a second")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("rows")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dfe3e8", linewidth=0.6)
    left.legend(frameon=False, fontsize=8.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
