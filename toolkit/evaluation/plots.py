"""Every kind of picture that a report holds, drawn once for light pages and once for dark ones.

Pictures hold no date and no program name, so that the same figures give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.files import explained
from toolkit.errors import EmotionLRMError
from toolkit.evaluation.curves import Ints, Reliability, RiskCoverage
from toolkit.evaluation.document import Picture
from toolkit.evaluation.metrics import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Estimate = tuple[float, tuple[float, float]]
"""A value and its interval."""

_DPI, _CSS = 150, 96
_WIDTH = 7.4
_MANY = 16  # labels from which a map is drawn larger
_LEAST_WRITTEN = 0.005  # shares that round to 0 are left blank


@dataclass(frozen=True, slots=True)
class _Ink:
    """The colours of a page: ``series`` tells models, lenses or labels apart, ``map`` runs from little to much."""

    paper: str
    text: str
    soft: str
    grid: str
    map: tuple[str, ...]
    series: tuple[str, ...]


_LIGHT = _Ink(
    "#ffffff", "#20242a", "#5b6570", "#dfe3e8", ("#ffffff", "#b9d0e6", "#5a8fc0", "#1d4f80"),
    ("#2f5d8a", "#c8702a", "#4a8f5c", "#8a4f9e", "#a38a1f", "#b0475f", "#8b939c"),
)  # fmt: skip
_DARK = _Ink(
    "#16191d", "#dde2e8", "#98a2ad", "#343a42", ("#16191d", "#1f3e5c", "#3d78ad", "#b5d8f7"),
    ("#6ea6dc", "#e59a5a", "#79c08c", "#c18bd6", "#d6bd52", "#e2839a", "#7b848e"),
)  # fmt: skip


def require_matplotlib() -> None:
    """Refuse to go on without the package that draws.

    Raises:
        EmotionLRMError: with the line that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EmotionLRMError("A report needs the package matplotlib.", "pip install matplotlib") from None


def prepare_folder(folder: Path) -> None:
    """Find out before long work whether a report can be drawn and written: make its folder.

    Raises:
        EmotionLRMError: where matplotlib is missing.
        FileError: where the folder cannot be made.
    """
    require_matplotlib()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def bars(series: Mapping[str, Mapping[str, float]], title: str, below: str, *, written: str = "{:,.0f}") -> Picture:
    """Horizontal bars, a group for each label in the order given, the first on top.

    Args:
        series: for each name the value of every label; one name needs no legend.
        below: what the axis measures.
        written: how a value stands behind its bar.
    """
    labels = list(next(iter(series.values())))
    count = len(series)
    top = max((value for values in series.values() for value in values.values()), default=0) or 1
    thick = 0.76 / count

    def draw(ink: _Ink) -> Figure:
        figure, axes = _axes(ink, _WIDTH, 1.1 + len(labels) * max(0.25, 0.17 * count))
        for number, (name, values) in enumerate(series.items()):
            places = np.arange(len(labels)) + (number - (count - 1) / 2) * thick
            axes.barh(places, list(values.values()), height=thick, color=ink.series[number % 7], label=_short(name))
            for place, value in zip(places, values.values(), strict=True):
                axes.text(
                    value + 0.01 * top, place, written.format(value), va="center", color=ink.soft, in_layout=False,
                    fontsize=8 if count == 1 else 6.5,
                )  # fmt: skip
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 1.14 * top)
        axes.grid(axis="x", color=ink.grid, linewidth=0.6)
        if top >= 1000:
            axes.xaxis.set_major_formatter("{x:,.0f}")
        return _finished(figure, axes, ink, title, below, legend=count > 1)

    return _picture(draw)


def matrix_map(
    values: Floats | Ints,
    names: tuple[Sequence[str], Sequence[str]],
    title: str,
    sides: tuple[str, str],
    *,
    shares: bool,
) -> Picture:
    """A map of a matrix with every value written into its field, but for those that are or round to 0.

    Args:
        values: shape (rows, columns); counts, or shares from 0 to 1 with NaN for nothing.
        names: of the rows and of the columns.
        sides: what the rows and the columns are.
        shares: whether the values are shares; they are written in per cent.
    """
    known = np.nan_to_num(values)
    rows, columns = names
    large = max(len(rows), len(columns)) > _MANY
    step = 0.31 if large else 0.48
    top = 1.0 if shares else max(float(known.max(initial=0.0)), 1.0)
    size = 6.2 if large else 8

    def draw(ink: _Ink) -> Figure:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm

        figure, axes = _axes(ink, 2.0 + step * len(columns), 1.9 + step * len(rows))
        # The root: a few large fields, neutral above all, would leave the others white.
        axes.imshow(
            known, cmap=LinearSegmentedColormap.from_list("", ink.map), norm=PowerNorm(0.5, 0, top), aspect="equal"
        )
        for row, column in np.argwhere(known >= (_LEAST_WRITTEN if shares else 1)):
            value = known[row, column]
            told = f"{100 * value:.0f}" if shares else f"{value:.0f}"
            dark = (value / top) ** 0.5 > 0.6
            colour = ink.paper if dark else ink.text
            axes.text(column, row, told, ha="center", va="center", fontsize=size, color=colour, in_layout=False)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=ink.grid, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_ylabel(sides[0], color=ink.soft, fontsize=9)
        return _finished(figure, axes, ink, title, sides[1])

    return _picture(draw)


def reliability_diagram(curves: Mapping[str, Reliability], title: str) -> Picture:
    """Share correct against confidence, a point for each bin; on the dotted line a model is as sure as it is right."""

    def draw(ink: _Ink) -> Figure:
        figure, axes = _axes(ink, 6.4, 5.6)
        axes.plot((0, 1), (0, 1), color=ink.soft, linewidth=1, linestyle=":", label="as sure as it is right")
        for number, (name, curve) in enumerate(curves.items()):
            colour = ink.series[number % 7]
            axes.vlines(curve.confidence, curve.confidence, curve.correct, color=colour, linewidth=1, alpha=0.45)
            axes.plot(
                curve.confidence, curve.correct, color=colour, linewidth=1.4, marker="o", markersize=5,
                label=_short(name),
            )  # fmt: skip
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.01)
        axes.set_ylabel("share correct", color=ink.soft, fontsize=9)
        axes.grid(color=ink.grid, linewidth=0.6)
        return _finished(figure, axes, ink, title, "mean confidence of the bin", legend=True)

    return _picture(draw)


def risk_coverage_plot(
    curves: Mapping[str, RiskCoverage], points: Mapping[str, tuple[float, float]], title: str
) -> Picture:
    """Share wrong among the surest rows against how many are answered; ``points`` are where a model abstains."""

    def draw(ink: _Ink) -> Figure:
        figure, axes = _axes(ink, 6.8, 4.6)
        highest = 0.0
        for number, (name, curve) in enumerate(curves.items()):
            colour = ink.series[number % 7]
            axes.plot(curve.coverage, curve.risk, color=colour, linewidth=1.6, label=_short(name))
            highest = max(highest, float(curve.risk[curve.coverage >= 0.02].max(initial=0.0)))
            if name in points:
                coverage, risk = points[name]
                axes.plot(coverage, risk, "o", color=colour, markersize=8, markeredgecolor=ink.paper, clip_on=False)
                # Curves mostly rise: there is room above them to the left and below them to the right.
                left = coverage >= 0.5
                axes.annotate(
                    f"answers {100 * coverage:.0f} %, {100 * risk:.0f} % of them wrong", (coverage, risk),
                    ha="right" if left else "left", textcoords="offset points", fontsize=8, color=colour,
                    xytext=(-7, 9 + 12 * number) if left else (7, -16 - 12 * number),
                )  # fmt: skip
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, min(1.01, 1.25 * highest + 0.02))
        axes.set_ylabel("share wrong among the answered", color=ink.soft, fontsize=9)
        axes.grid(color=ink.grid, linewidth=0.6)
        return _finished(figure, axes, ink, title, "share of texts answered, the surest first", legend=len(curves) > 1)

    return _picture(draw)


def forest(panels: Mapping[str, Mapping[str, Estimate]], title: str) -> Picture:
    """Values with their intervals, a line each, the first on top; those whose interval holds 0 are hollow.

    Args:
        panels: side by side, by what their axis measures; all have the same lines.
    """
    names = list(next(iter(panels.values())))
    places = range(len(names))

    def draw(ink: _Ink) -> Figure:
        figure = _new(ink, _WIDTH, 1.2 + 0.26 * len(names))
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (below, lines) in zip(row, panels.items(), strict=True):
            axes.axvline(0, color=ink.soft, linewidth=1, linestyle=":")
            for place, (value, (low, high)) in zip(places, lines.values(), strict=True):
                colour, inside = (ink.soft, ink.paper) if low <= 0 <= high else (ink.series[0], ink.series[0])
                axes.plot((low, high), (place, place), color=colour, linewidth=1.6)
                axes.plot(value, place, "o", color=colour, markerfacecolor=inside, markersize=6)
            axes.set_yticks(places, map(_short, names))
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=9 // len(panels))
            axes.grid(axis="x", color=ink.grid, linewidth=0.6)
            axes.set_xlabel(below, color=ink.soft, fontsize=9)
            _dress(axes, ink)
            axes.tick_params(axis="y", length=0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=ink.text)
        return figure

    return _picture(draw)


def histogram(counts: Sequence[int], title: str, below: str) -> Picture:
    """How many values lie in each of equal steps from 0 to 1."""

    def draw(ink: _Ink) -> Figure:
        figure, axes = _axes(ink, _WIDTH, 3.2)
        axes.stairs(counts, np.linspace(0, 1, len(counts) + 1), fill=True, color=ink.series[0])
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", color=ink.grid, linewidth=0.6)
        return _finished(figure, axes, ink, title, below)

    return _picture(draw)


def shares_over_time(periods: Sequence[str], counts: Mapping[str, Sequence[int]], title: str) -> Picture:
    """Stacked columns of the labels' shares, and above them how many texts each period has.

    Args:
        counts: for each label its texts in every period; at most seven labels, the first at the bottom.
    """
    values = np.array(list(counts.values()), dtype=float)
    totals = values.sum(0)
    shares = 100 * values / np.maximum(totals, 1)

    def draw(ink: _Ink) -> Figure:
        figure = _new(ink, _WIDTH, 5.2)
        above, axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 3.4)})
        above.bar(range(len(periods)), totals, color=ink.soft, width=0.86)
        _dress(above, ink)
        above.set_ylabel("texts", color=ink.soft, fontsize=9)
        above.yaxis.set_major_locator(_whole_numbers())
        floor = np.zeros(len(periods))
        for number, (label, share) in enumerate(zip(counts, shares, strict=True)):
            axes.bar(range(len(periods)), share, bottom=floor, width=0.86, color=ink.series[number % 7], label=label)
            floor += share
        every = -(-len(periods) // 12)
        axes.set_xticks(range(0, len(periods), every), periods[::every], rotation=45, ha="right")
        axes.set_xlim(-0.6, len(periods) - 0.4)
        axes.set_ylim(0, 100)
        axes.set_ylabel("share of the texts in %", color=ink.soft, fontsize=9)
        above.set_title(title, loc="left", fontsize=11, color=ink.text)
        _dress(axes, ink)
        handles, names = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1], names[::-1], loc="outside right center", frameon=False, fontsize=8, labelcolor=ink.text
        )
        return figure

    return _picture(draw)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3, integer=True)


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _new(ink: _Ink, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=ink.paper)


def _axes(ink: _Ink, width: float, height: float) -> tuple[Figure, Any]:
    figure = _new(ink, width, height)
    return figure, figure.add_subplot()


def _dress(axes: Any, ink: _Ink) -> None:
    axes.set_facecolor(ink.paper)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink.grid)
    axes.tick_params(labelsize=8.5, colors=ink.text, color=ink.grid)


def _finished(figure: Figure, axes: Any, ink: _Ink, title: str, below: str, *, legend: bool = False) -> Figure:
    _dress(axes, ink)
    axes.set_title(title, loc="left", fontsize=11, color=ink.text)
    axes.set_xlabel(below, color=ink.soft, fontsize=9)
    if legend:
        figure.legend(loc="outside lower left", frameon=False, fontsize=8.5, labelcolor=ink.text, ncols=1)
    return figure


def _picture(draw: Callable[[_Ink], Figure]) -> Picture:
    light, dark = draw(_LIGHT), draw(_DARK)
    return Picture(_png(light), _png(dark), round(light.get_figwidth() * _CSS))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
