"""What the corpora hold: labels, lengths, labels that stand together; as pictures and as one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.files import replacing
from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import NEUTRAL, Taxonomy, load_taxonomy
from toolkit.corpora import figures, page
from toolkit.corpora.empathetic import find_empathetic, read_empathetic
from toolkit.corpora.goemotions import find_split, read_goemotions, resolve_source
from toolkit.corpora.tables import Damage
from toolkit.errors import DataError

CAP = 10_000  # neutral texts that The Echo Room keeps
AUTHOR, READER = "GoEmotions, comments", "EmpatheticDialogues, situations"
AUTHOR_PNG = "goemotions_author_distribution.png"
BALANCED_PNG = "goemotions_balanced_distribution.png"
TOGETHER_PNG = "goemotions_cooccurrence.png"
READER_PNG = "empathetic_reader_distribution.png"
LENGTH_PNG = "text_length_distribution.png"
PAGE = "explore.html"


@dataclass
class Census:
    """What one corpus holds.

    Attributes:
        texts: how many there are.
        labels: how often each label stands, in taxonomy order.
        single: the same over texts with a single label.
        lengths: how many texts have how many words.
        together: how many texts bear both labels, labels by labels.
    """

    taxonomy: Taxonomy
    texts: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    single: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    together: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    damage: Damage = field(default_factory=Damage)

    def shared(self, cap: int | None = None) -> dict[str, int]:
        """Texts with a single label that maps into the ten shared ones, per shared label.

        Args:
            cap: count at most so many neutral ones.
        """
        ten = load_taxonomy("shared10").labels
        counts = dict.fromkeys(ten, 0)
        for label, place in zip(self.taxonomy.labels, self.taxonomy.mapping("shared10"), strict=True):
            if place is not None:
                counts[ten[place]] += self.single[label]
        if cap is not None:
            counts[NEUTRAL] = min(counts[NEUTRAL], cap)
        return counts

    def conditional(self) -> NDArray[np.float64]:
        """Of the texts with the row's label, the share that has the column's too."""
        return self.together / np.maximum(np.diag(self.together), 1)[:, None]


def take_census(examples: Iterable[Example], taxonomy: str, damage: Damage) -> Census:
    """Count one corpus."""
    known = load_taxonomy(taxonomy)
    place = {label: n for n, label in enumerate(known.labels)}
    census = Census(known, labels=Counter(dict.fromkeys(known.labels, 0)), damage=damage)
    census.together = np.zeros((len(place), len(place)))
    for example in examples:
        census.texts += 1
        census.labels.update(example.labels)
        if len(example.labels) == 1:
            census.single.update(example.labels)
        census.lengths[count_words(example.text)] += 1
        rows = [place[label] for label in example.labels]
        census.together[np.ix_(rows, rows)] += 1
    return census


def explore(source: Path | None, out: Path, limit: int | None = None, cap: int = CAP) -> dict[str, Any]:
    """Draw the pictures and the page ``explore.html`` of the train splits that are there into ``out``.

    Args:
        source: the corpora folder; None takes ``EMOTION_LRM_CORPORA`` or the hub.
        limit: read only this many rows of each corpus.
        cap: the most neutral texts in the picture of the balanced labels.

    Returns:
        the texts of each corpus, the files written, and what was missing.

    Raises:
        DataError: where neither corpus is there.
    """
    figures.require_matplotlib()
    folder = resolve_source(source)
    author, reader = _read_both(folder, limit)
    if author is None and reader is None:
        raise DataError(f"{folder} holds the train split of neither corpus.", "Check --source or EMOTION_LRM_CORPORA.")
    drawn = dict(_draw(author, reader, cap))
    for name, (png, _) in drawn.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(png)
    page.write_page(out / PAGE, "What the corpora hold", _parts(author, reader, drawn))
    found = {AUTHOR: author, READER: reader}
    return {
        "texts": {name: census.texts for name, census in found.items() if census},
        "written": [*drawn, PAGE],
        "missing": [name for name, census in found.items() if census is None],
        "damaged_rows": sum(census.damage.count for census in found.values() if census),
    }


def _read_both(folder: Path | None, limit: int | None) -> tuple[Census | None, Census | None]:
    def read(there: object, reader: Callable[[Damage], Iterable[Example]], taxonomy: str) -> Census | None:
        damage = Damage()
        return take_census(islice(reader(damage), limit), taxonomy, damage) if folder is None or there else None

    return (
        read(folder and find_split(folder, "train"), lambda d: read_goemotions("train", folder, d), "goemotions"),
        read(
            folder and find_empathetic(folder, "train"),
            lambda d: read_empathetic("train", folder, damage=d),
            "empathetic",
        ),
    )


def _draw(author: Census | None, reader: Census | None, cap: int) -> Iterable[tuple[str, tuple[bytes, str]]]:
    """Each picture's name, bytes and the words under it."""
    if author:
        yield (
            AUTHOR_PNG,
            (
                figures.label_bars(author.labels, f"GoEmotions train: labels of {author.texts:,} comments"),
                "Labels on which at least two raters agree; a comment may bear several.",
            ),
        )
        bars = figures.label_bars(
            author.shared(cap),
            f"GoEmotions train: the ten shared labels, neutral capped at {cap:,}",
            author.shared(),
            ("before the cap", "after the cap"),
        )
        words = f"Comments with exactly one label, at most {cap:,} of them neutral. One row is an agreed text, not one "
        yield BALANCED_PNG, (bars, f"{words}rater's row.")
        yield (
            TOGETHER_PNG,
            (
                figures.cooccurrence_map(
                    author.conditional(), author.taxonomy.labels, "GoEmotions train: labels together"
                ),
                "Of the comments with the row's label, the per cent that bear the column's as well.",
            ),
        )
    if reader:
        yield (
            READER_PNG,
            (
                figures.label_bars(
                    reader.labels, f"EmpatheticDialogues train: emotions of {reader.texts:,} situations"
                ),
                "The feeling that the speaker set out to convey; each situation has one.",
            ),
        )
    lengths = {name: c.lengths for name, c in ((AUTHOR, author), (READER, reader)) if c and c.texts}
    if lengths:
        yield LENGTH_PNG, (figures.length_lines(lengths, "Words per text"), "Words as white space parts them.")


def _parts(author: Census | None, reader: Census | None, drawn: dict[str, tuple[bytes, str]]) -> Sequence[str]:
    titles = {
        AUTHOR_PNG: "The author's lens: GoEmotions",
        BALANCED_PNG: "The ten shared labels, balanced",
        TOGETHER_PNG: "Labels that stand together",
        READER_PNG: "The reader's lens: EmpatheticDialogues",
        LENGTH_PNG: "Lengths",
    }
    parts = []
    for name, (png, words) in drawn.items():
        parts += [page.heading(titles[name]), page.picture(png, titles[name]), page.paragraph(words)]
    rows = [
        (
            name,
            census.texts,
            len(census.labels),
            sum(census.labels.values()) / max(census.texts, 1),
            census.damage.count,
        )
        for name, census in ((AUTHOR, author), (READER, reader))
        if census
    ]
    header = ("corpus, train split", "texts", "labels", "labels a text", "damaged rows passed over")
    causes = [(cause,) for census in (author, reader) if census for cause in census.damage.shown]
    damaged = [page.table(("damaged rows, the first of them",), causes)] if causes else []
    return [page.table(header, rows), *damaged, *parts]
