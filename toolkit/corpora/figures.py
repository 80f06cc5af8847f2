"""The pictures that the corpora commands draw: bars per label, lengths of texts, labels that stand together.

Pictures hold no date and no program name, so that the same figures give the same bytes.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import EmotionLRMError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY, ORANGE = "#2f5d8a", "#c9d1d9", "#c8702a"
_DPI = 110


def require_matplotlib() -> None:
    """Refuse to go on without the package that draws.

    Raises:
        EmotionLRMError: naming the extra that brings it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EmotionLRMError(
            "Drawing needs the package matplotlib.", 'Install it with: pip install ".[data]"'
        ) from None


def label_bars(
    counts: Mapping[str, int], title: str, behind: Mapping[str, int] | None = None, names: tuple[str, str] = ("", "")
) -> bytes:
    """Horizontal bars, the most frequent label on top, as a PNG.

    Args:
        behind: further counts, drawn as pale bars behind the others.
        names: what the two sorts of bars are called where there are both.
    """
    labels = sorted(counts, key=lambda label: (max(counts[label], (behind or {}).get(label, 0)), label))
    figure = _figure(8.5, 1.2 + 0.24 * len(labels))
    axes = figure.add_subplot()
    if behind is not None:
        axes.barh(labels, [behind.get(label, 0) for label in labels], color=GREY, label=names[0], height=0.6)
    axes.barh(labels, [counts[label] for label in labels], color=BLUE, label=names[1], height=0.6)
    longest = max(max(counts.values(), default=1), max((behind or {}).values(), default=1), 1)
    for place, label in enumerate(labels):
        end = max(counts[label], (behind or {}).get(label, 0))
        shown = f"{counts[label]:,}" if behind is None or end == counts[label] else f"{counts[label]:,} of {end:,}"
        axes.text(end + 0.01 * longest, place, shown, va="center", fontsize=8, color="#444444")
    axes.set_xlim(0, 1.16 * longest)
    if behind is not None:
        axes.legend(loc="lower right", frameon=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _dress(axes, title, "texts")
    axes.margins(y=0.01)
    return _png(figure)


def length_lines(lengths: Mapping[str, Counter[int]], title: str) -> bytes:
    """How many words texts have, one outlined histogram for each corpus in shares of its texts, as a PNG.

    Args:
        lengths: for each corpus how many texts have how many words.
    """
    figure = _figure(8.5, 4.2)
    axes = figure.add_subplot()
    top = max(_percentile(counts, 0.995) for counts in lengths.values())
    for (name, counts), colour in zip(lengths.items(), (BLUE, ORANGE, GREY), strict=False):
        total = sum(counts.values())
        shares = [100 * counts[n] / total for n in range(top + 1)]
        axes.stairs(shares, np.arange(top + 2) - 0.5, color=colour, fill=True, alpha=0.35)
        middle = _percentile(counts, 0.5)
        axes.stairs(shares, np.arange(top + 2) - 0.5, color=colour, label=f"{name} (median {middle} words)")
    axes.set_xlim(-0.5, top + 0.5)
    axes.set_ylabel("share of texts in %")
    axes.legend(frameon=False)
    _dress(axes, title, "words of a text (the longest half per cent lies outside)")
    return _png(figure)


def cooccurrence_map(shares: NDArray[np.float64], labels: Sequence[str], title: str) -> bytes:
    """A square map: of the texts with the row's label, the share that has the column's too, as a PNG.

    Args:
        shares: labels by labels, 0 to 1; the diagonal is not drawn.
    """
    figure = _figure(9.5, 8.8)
    axes = figure.add_subplot()
    values = np.where(np.eye(len(labels), dtype=bool), np.nan, 100 * shares)
    top = max(float(np.nanmax(values)), 1e-9) if len(labels) > 1 else 1.0
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    for row, column in np.argwhere(np.nan_to_num(values) >= 4.5):
        colour = "white" if values[row, column] > 0.6 * top else "black"
        axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel("of the texts with this label ...")
    axes.set_xlabel("... so many per cent also have this one (written from 5 % on)")
    figure.colorbar(image, shrink=0.7, label="%")
    return _png(figure)


def _percentile(counts: Counter[int], share: float) -> int:
    ordered = sorted(counts.elements())
    return ordered[round(share * (len(ordered) - 1))]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _dress(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
