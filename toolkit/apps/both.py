"""Rows through both lenses: two readings of every text, compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from toolkit.apps.answers import Answers, Predictor
from toolkit.apps.tables import Row
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens
from toolkit.inference.divergence import CHUNK, check_shared, compare
from toolkit.inference.request import Wish, check_lens


@dataclass(frozen=True, slots=True)
class Pair:
    """How texts are to be read through both lenses."""

    author: Wish
    reader: Wish


def pair_of(taxonomy: str | None, mode: str) -> Pair:
    """The pair, with each lens's own taxonomy where ``taxonomy`` is None.

    Raises:
        UsageError: for a taxonomy that the lenses do not share.
    """
    check_shared(taxonomy)
    return Pair(*(Wish(lens, taxonomy or lens.native, mode) for lens in Lens))


def check_both(predictor: Predictor) -> None:
    """Refuse a model that says which lenses it has learned and lacks one.

    Raises:
        UsageError: naming the lenses that it knows.
    """
    for lens in Lens:
        check_lens(lens, getattr(predictor, "lenses", tuple(Lens)), predictor.name)


def comparisons(predictor: Predictor, rows: Iterable[Row], pair: Pair) -> Iterator[tuple[Row, Comparison | str | None]]:
    """The outcomes of rows as :class:`~toolkit.apps.answers.Answers` gives them, with comparisons for analyses.

    A few hundred rows are read through one lens and then through the other, for a model can read through one at a
    time; a text that comes again after those is read again.
    """
    noise_line: float | None = getattr(predictor, "noise_line", None)
    waiting = iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        author, reader = (list(Answers(predictor, chunk, wish)) for wish in (pair.author, pair.reader))
        for (row, ours), (_, theirs) in zip(author, reader, strict=True):
            if isinstance(ours, Analysis) and isinstance(theirs, Analysis):
                yield row, compare(ours, theirs, noise_line)
            else:
                yield row, ours if isinstance(ours, str) else theirs if isinstance(theirs, str) else None
