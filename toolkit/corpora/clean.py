"""Cleaning as a list of small filters: each keeps an example, drops it or lowers its weight, and says why.

Nothing is dropped silently: the report counts every reason and shows examples of each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.corpora.duplicates import exact_duplicates, near_copies, near_duplicates
from toolkit.corpora.filters import (
    Filter,
    Finding,
    foreign,
    links,
    masks_only,
    other_language,
    repeats,
    spam,
    too_short,
)
from toolkit.corpora.tables import Damage

SHOWN = 5  # examples that the report shows of each reason


class CleanConfig(Config):
    """Which filters run and how strict they are.

    Attributes:
        exact_duplicates: drop a text that came before, whatever its labels.
        near_duplicates: drop training texts this similar to one of another split (Jaccard, 0 to 1); null leaves it out.
        near_copies: the same inside the split, where the first stays; null leaves it out.
        min_words: drop texts with fewer words, unless an emoji or emoticon speaks for itself.
        masks_only: drop texts of nothing but masks such as ``[NAME]``.
        max_link_share: drop texts in which more of the words are links; ``link_factor`` weighs the rest with a link.
        max_repeats: drop texts of which one word makes up a larger share, from six words on.
        max_foreign_share: drop texts of whose letters a larger share is not ASCII.
        spam: drop what advertisers and automatic accounts write.
        other_language: drop texts of whose words this share are function words of one other language.
    """

    exact_duplicates: bool = True
    near_duplicates: float | None = Field(0.8, gt=0, le=1)
    near_copies: float | None = Field(0.9, gt=0, le=1)
    min_words: int = Field(1, ge=0)
    masks_only: bool = True
    max_link_share: float = Field(0.3, ge=0, le=1)
    link_factor: float = Field(0.5, ge=0, le=1)
    max_repeats: float = Field(0.7, gt=0, le=1)
    max_foreign_share: float = Field(0.3, ge=0, le=1)
    spam: bool = True
    other_language: float = Field(0.3, gt=0, le=1)


@dataclass
class Passage:
    """What one filter did: the rows that reached it, those that it dropped, and those that it weighed down."""

    read: int = 0
    dropped: int = 0
    weighed_down: int = 0


@dataclass
class CleaningReport:
    """What cleaning did: rows in and out, in total, per filter and per label, every reason with examples, and lengths.

    ``rated`` counts the examples with soft targets, ``damage`` the rows that could not be read at all.
    """

    read: int = 0
    kept: int = 0
    filters: dict[str, Passage] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    weighed_down: Counter[str] = field(default_factory=Counter)
    dropped_by_label: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    shown: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    labels_read: Counter[str] = field(default_factory=Counter)
    labels_kept: Counter[str] = field(default_factory=Counter)
    lengths_read: Counter[int] = field(default_factory=Counter)
    lengths_kept: Counter[int] = field(default_factory=Counter)
    rated: int = 0
    raters_left_out: list[str] = field(default_factory=list)
    damage: Damage = field(default_factory=Damage)

    def filter(self, name: str) -> Passage:
        """The counts of the filter of that name."""
        return self.filters.setdefault(name, Passage())

    def note(self, name: str, example: Example, finding: Finding) -> None:
        """Count what the filter ``name`` found."""
        passage = self.filter(name)
        if finding.factor:
            passage.weighed_down += 1
            self.weighed_down[finding.reason] += 1
        else:
            passage.dropped += 1
            self.dropped[finding.reason] += 1
            for label in example.labels:
                self.dropped_by_label[label][finding.reason] += 1
        if len(self.shown[finding.reason]) < SHOWN:
            self.shown[finding.reason].append(example.text)

    def enter(self, example: Example) -> None:
        """Count an example that came in."""
        self.read += 1
        self.rated += example.soft is not None
        self.labels_read.update(example.labels)
        self.lengths_read[count_words(example.text)] += 1

    def keep(self, example: Example) -> None:
        """Count an example that stays."""
        self.kept += 1
        self.labels_kept.update(example.labels)
        self.lengths_kept[count_words(example.text)] += 1

    def take_back(self, name: str, example: Example, finding: Finding) -> None:
        """Count as dropped by the filter ``name`` an example that was kept before."""
        self.note(name, example, finding)
        self.kept -= 1
        self.labels_kept.subtract(example.labels)
        self.lengths_kept[count_words(example.text)] -= 1

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON shows it, counts in falling order."""
        return {
            "read": self.read,
            "kept": self.kept,
            "filters": {
                name: {
                    "in": p.read,
                    "dropped": p.dropped,
                    "weighed_down": p.weighed_down,
                    "out": p.read - p.dropped,
                }
                for name, p in self.filters.items()
            },
            "dropped": dict(self.dropped.most_common()),
            "weighed_down": dict(self.weighed_down.most_common()),
            "labels_read": dict(self.labels_read.most_common()),
            "labels_kept": dict(self.labels_kept.most_common()),
            "dropped_by_label": {
                label: dict(self.dropped_by_label[label].most_common()) for label, _ in self.labels_read.most_common()
            },
            "examples": dict(self.shown),
            "damaged_rows": {"count": self.damage.count, "first": self.damage.shown},
            "rated": self.rated,
            "raters_left_out": self.raters_left_out,
            "words_read": _quantiles(self.lengths_read),
            "words_kept": _quantiles(self.lengths_kept),
        }


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """How many words the texts have at certain places of their order."""
    ordered = sorted(lengths.elements())
    places = {"least": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p99": 0.99, "most": 1.0}
    return {name: ordered[round(p * (len(ordered) - 1))] for name, p in places.items()} if ordered else {}


def clean(
    examples: Iterable[Example], filters: Mapping[str, Filter], report: CleaningReport | None = None
) -> tuple[list[Example], CleaningReport]:
    """Run every example through ``filters`` in order; the first that drops it ends its way.

    Args:
        filters: each by the name under which the report counts it.
        report: goes on counting in this one.
    """
    report, kept = report or CleaningReport(), []
    for example in examples:
        report.enter(example)
        weight = example.weight
        for name, judge in filters.items():
            report.filter(name).read += 1
            finding = judge(example)
            if finding is not None:
                report.note(name, example, finding)
                weight *= finding.factor
                if not weight:
                    break
        if weight:
            kept.append(replace(example, weight=weight))
            report.keep(example)
    return kept, report


def build_filters(config: CleanConfig, held_out: Iterable[Example] = ()) -> dict[str, Filter]:
    """The filters that ``config`` asks for by the names of its keys, cheapest first.

    Args:
        held_out: the examples of the other splits; near duplicates of these leave the training split.
    """
    filters: dict[str, Filter | None] = {
        "min_words": too_short(config.min_words),
        "masks_only": masks_only if config.masks_only else None,
        "max_link_share": links(config.max_link_share, config.link_factor),
        "max_repeats": repeats(config.max_repeats),
        "max_foreign_share": foreign(config.max_foreign_share),
        "other_language": other_language(config.other_language),
        "spam": spam if config.spam else None,
        "exact_duplicates": exact_duplicates() if config.exact_duplicates else None,
        "near_duplicates": near_duplicates(held_out, config.near_duplicates) if config.near_duplicates else None,
        "near_copies": near_copies(config.near_copies) if config.near_copies else None,
    }
    return {name: judge for name, judge in filters.items() if judge is not None}
