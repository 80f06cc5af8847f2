"""Cleaning as a list of small filters: each keeps an example, drops it or lowers its weight, and says why.

Nothing is dropped silently: the report counts every reason and shows examples of each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.corpora.spans import only_masks, words_of

SHOWN = 5  # examples that the report shows of each reason
_LINK = re.compile(r"(?:https?://|www\.)\S+|\b\w+\.(?:com|org|net|co\.uk|io)\b\S*", re.IGNORECASE)
_SYMBOL = re.compile(r"[\U0001f000-\U0001faff\u2600-\u27bf]|[:;=][-']?[()DPp/\\|]|<3")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a filter has against an example: the reason, and the factor for its weight; 0 drops it."""

    reason: str
    factor: float = 0.0


Filter = Callable[[Example], Finding | None]


class CleanConfig(Config):
    """Which filters run and how strict they are.

    Attributes:
        exact_duplicates: drop a text that came before, whatever its labels.
        near_duplicates: drop training texts this similar to one of another split (Jaccard, 0 to 1); null leaves it out.
        min_words: drop texts with fewer words, unless an emoji or emoticon speaks for itself.
        masks_only: drop texts of nothing but masks such as ``[NAME]``.
        max_link_share: drop texts in which more of the words are links; ``link_factor`` weighs the rest with a link.
        max_repeats: drop texts of which one word makes up a larger share, from six words on.
        max_foreign_share: drop texts of whose letters a larger share is not ASCII.
    """

    exact_duplicates: bool = True
    near_duplicates: float | None = Field(0.8, gt=0, le=1)
    min_words: int = Field(1, ge=0)
    masks_only: bool = True
    max_link_share: float = Field(0.3, ge=0, le=1)
    link_factor: float = Field(0.5, ge=0, le=1)
    max_repeats: float = Field(0.7, gt=0, le=1)
    max_foreign_share: float = Field(0.3, ge=0, le=1)


@dataclass
class CleaningReport:
    """What cleaning did: rows in and out, in total and per label, and every reason with examples."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    weighed_down: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    labels_read: Counter[str] = field(default_factory=Counter)
    labels_kept: Counter[str] = field(default_factory=Counter)

    def note(self, example: Example, finding: Finding) -> None:
        """Count one finding."""
        (self.weighed_down if finding.factor else self.dropped)[finding.reason] += 1
        if len(self.shown[finding.reason]) < SHOWN:
            self.shown[finding.reason].append(example.text)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON shows it, counts in falling order."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "weighed_down": dict(self.weighed_down.most_common()),
            "labels_read": dict(self.labels_read.most_common()),
            "labels_kept": dict(self.labels_kept.most_common()),
            "examples": dict(self.shown),
        }


def clean(examples: Iterable[Example], filters: Sequence[Filter]) -> tuple[list[Example], CleaningReport]:
    """Run every example through ``filters`` in order; the first that drops it ends its way."""
    report, kept = CleaningReport(), []
    for example in examples:
        report.read += 1
        report.labels_read.update(example.labels)
        weight = example.weight
        for judge in filters:
            finding = judge(example)
            if finding is not None:
                report.note(example, finding)
                weight *= finding.factor
                if not weight:
                    break
        if weight:
            kept.append(replace(example, weight=weight))
            report.labels_kept.update(example.labels)
    report.kept = len(kept)
    return kept, report


def build_filters(config: CleanConfig, held_out: Iterable[Example] = ()) -> list[Filter]:
    """The filters that ``config`` asks for, cheapest first.

    Args:
        held_out: the examples of the other splits; near duplicates of these leave the training split.
    """
    filters = [too_short(config.min_words)]
    if config.masks_only:
        filters.append(masks_only)
    filters += [
        links(config.max_link_share, config.link_factor),
        repeats(config.max_repeats),
        foreign(config.max_foreign_share),
    ]
    if config.exact_duplicates:
        filters.append(exact_duplicates())
    if config.near_duplicates is not None:
        filters.append(near_duplicates(held_out, config.near_duplicates))
    return filters


def too_short(min_words: int) -> Filter:
    """Drops texts of fewer than ``min_words`` words, unless an emoji or emoticon speaks for itself."""

    def judge(example: Example) -> Finding | None:
        short = len(words_of(example.text)) < min_words and not _SYMBOL.search(example.text)
        return Finding("too short") if short else None

    return judge


def masks_only(example: Example) -> Finding | None:
    """Drops texts of nothing but masks."""
    empty = bool(words_of(example.text)) and only_masks(example.text) and not _SYMBOL.search(example.text)
    return Finding("nothing but masks") if empty else None


def links(max_share: float, factor: float) -> Filter:
    """Drops texts that are mostly links and weighs down others that hold one."""

    def judge(example: Example) -> Finding | None:
        found = len(_LINK.findall(example.text))
        if not found:
            return None
        if found > max_share * len(example.text.split()):
            return Finding("mostly links")
        return Finding("holds a link", factor) if factor < 1 else None

    return judge


def repeats(max_share: float) -> Filter:
    """Drops texts of six words or more of which a single word makes up too large a share."""

    def judge(example: Example) -> Finding | None:
        forms = [w.form for w in words_of(example.text)]
        if len(forms) < 6:
            return None
        most = Counter(forms).most_common(1)[0][1]
        return Finding("one word over and over") if most > max_share * len(forms) else None

    return judge


def foreign(max_share: float) -> Filter:
    """Drops texts too many of whose letters are not ASCII."""

    def judge(example: Example) -> Finding | None:
        letters = [c for c in example.text if c.isalpha()]
        strange = sum(not c.isascii() for c in letters)
        return Finding("hardly any English letters") if letters and strange > max_share * len(letters) else None

    return judge


def exact_duplicates() -> Filter:
    """Drops a text that it has seen before."""
    seen: set[str] = set()

    def judge(example: Example) -> Finding | None:
        text = " ".join(example.text.split())
        if text in seen:
            return Finding("exact duplicate")
        seen.add(text)
        return None

    return judge


def near_duplicates(held_out: Iterable[Example], similarity: float) -> Filter:
    """Drops texts whose word triples overlap so much with a text of another split.

    The measure is Jaccard's over sets of three neighbouring words, case, punctuation and digits aside; shorter texts
    count as one piece.
    """
    known = [_pieces(example.text) for example in held_out]
    holders: dict[str, list[int]] = defaultdict(list)
    for number, pieces in enumerate(known):
        for piece in pieces:
            holders[piece].append(number)

    def judge(example: Example) -> Finding | None:
        own = _pieces(example.text)
        shared = Counter(number for piece in own for number in holders.get(piece, ()))
        close = any(n >= similarity * (len(own) + len(known[number]) - n) for number, n in shared.items())
        return Finding("near duplicate of another split") if close else None

    return judge


def _pieces(text: str) -> frozenset[str]:
    forms = [re.sub(r"\d+", "0", w.form) for w in words_of(text)]
    if len(forms) < 4:
        return frozenset([" ".join(forms) or text.strip()])
    return frozenset(" ".join(forms[i : i + 3]) for i in range(len(forms) - 2))
