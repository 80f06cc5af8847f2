"""How far the raters of a text agree: shares of raters per label, soft targets, and texts that they found unclear.

Where the per-rater release is there, every rating counts but two kinds: one that calls the text unclear (it is counted
as such and votes for nothing), and those of raters who rarely agree with anybody. A rater's agreement is the share of
their ratings in which another rater of the same text chose one of the same labels; raters below a share of the median
agreement are left out, those with too few comparable ratings stay. Where only a table of votes is there, it serves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.filters import Filter, Finding
from toolkit.corpora.ratings import Rating
from toolkit.corpora.tables import Damage, read_table, refuse

VOTES = "votes.tsv"


class AgreementConfig(Config):
    """What the ratings are used for.

    Attributes:
        soft: give examples soft targets, the raters' votes mixed with the official labels.
        prior: the official labels weigh as much as this many further raters, which steadies texts with few ratings.
        min_share: drop texts none of whose labels this share of the raters chose; 0 keeps all.
        max_unclear: drop texts that a larger share of the raters called unclear.
        rater_floor: leave out raters who agree with others less than this share of the median; 0 keeps all.
        rater_ratings: raters with fewer comparable ratings are not judged.
        min_raters: without official splits, a text has the labels that so many raters chose.
    """

    soft: bool = True
    prior: float = Field(2.0, ge=0)
    min_share: float = Field(0.0, ge=0, le=1)
    max_unclear: float = Field(0.5, ge=0, le=1)
    rater_floor: float = Field(0.5, ge=0, le=1)
    rater_ratings: int = Field(30, ge=1)
    min_raters: int = Field(2, ge=1)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the raters of one text said.

    Attributes:
        votes: how many raters chose each label.
        raters: how many raters found the text clear.
        unclear: how many did not.
    """

    votes: Mapping[str, int]
    raters: int
    unclear: int = 0

    def share(self, label: str) -> float:
        """The share of the clear ratings that name ``label``, 0 to 1."""
        return self.votes.get(label, 0) / self.raters if self.raters else 0.0

    def soft(self, labels: Sequence[str], prior: float) -> dict[str, float]:
        """Shares over labels that sum to 1: the votes, and ``labels`` in equal parts as ``prior`` further raters."""
        total = sum(self.votes.values())
        mass = {label: self.raters * count / total for label, count in self.votes.items()}
        for label in labels:
            mass[label] = mass.get(label, 0.0) + prior / len(labels)
        whole = sum(mass.values())
        return {label: mass[label] / whole for label in load_taxonomy("goemotions").labels if mass.get(label)}


def summarize(ratings: Iterable[Rating], config: AgreementConfig) -> tuple[dict[str, Agreement], set[str]]:
    """The agreement on each text by its id, and the raters that were left out."""
    rows = list(ratings)
    strangers = unreliable_raters(rows, config.rater_floor, config.rater_ratings)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    clear: Counter[str] = Counter()
    unclear: Counter[str] = Counter()
    for rating in rows:
        if rating.rater not in strangers:
            votes[rating.id].update(rating.labels)
            (clear if rating.labels else unclear)[rating.id] += 1
    return {name: Agreement(dict(count), clear[name], unclear[name]) for name, count in votes.items()}, strangers


def unreliable_raters(ratings: Sequence[Rating], floor: float, least: int) -> set[str]:
    """The raters whose agreement with others lies under ``floor`` times the median, of those with ``least`` ratings."""
    texts: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if rating.labels:
            texts[rating.id].append(rating)
    compared: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for rows in texts.values():
        votes = Counter(label for row in rows for label in row.labels)
        for row in rows:
            if row.rater is not None and len(rows) > 1:
                compared[row.rater] += 1
                agreed[row.rater] += any(votes[label] > 1 for label in row.labels)
    shares = {rater: agreed[rater] / n for rater, n in compared.items() if n >= least}
    bound = floor * median(shares.values()) if shares else 0.0
    return {rater for rater, share in shares.items() if share < bound}


def read_votes(path: Path, damage: Damage | None = None) -> dict[str, Agreement]:
    """Agreement by comment id from a table with ``id`` and ``sampled_votes`` (``label number:count,...``).

    The table that lies with the corpora is a 69 % sample of the ratings, each reduced to its alphabetically first
    label, so labels late in the alphabet are under-counted. It is a soft signal and not the raters' true agreement:
    with it ``min_share`` is unsafe.

    Raises:
        DataError: for a missing column, and without ``damage`` for a damaged row.
    """
    names = load_taxonomy("goemotions").labels
    found: dict[str, Agreement] = {}
    for where, row in read_table(path, ("id", "sampled_votes"), damage):
        if not row["sampled_votes"]:  # the sample took none of this text's ratings
            continue
        try:
            pairs = [pair.split(":") for pair in row["sampled_votes"].split(",")]
            votes = {names[range(len(names)).index(int(label))]: int(count) for label, count in pairs}
            if min(votes.values()) < 1:
                raise ValueError(votes)
        except ValueError:
            refuse(f"{where}, has the votes {row['sampled_votes']!r}, not label:count pairs.", damage)
        else:
            found[row["id"]] = Agreement(votes, sum(votes.values()))
    return found


def fuller(first: Mapping[str, Agreement], second: Mapping[str, Agreement]) -> dict[str, Agreement]:
    """For each text the source in which more raters found it clear; the first where both are equal."""
    better = {k: a for k, a in second.items() if k not in first or a.raters > first[k].raters}
    return {**first, **better}


def attach(
    examples: Iterable[Example], agreements: Mapping[str, Agreement], config: AgreementConfig
) -> Iterator[Example]:
    """The examples with soft targets where raters are known."""
    for example in examples:
        known = agreements.get(example.id)
        if config.soft and known is not None and known.raters:
            example = replace(example, soft=known.soft(example.labels, config.prior))
        yield example


def agreed(ratings: Iterable[Rating], agreements: Mapping[str, Agreement], min_raters: int) -> Iterator[Example]:
    """One example for each text whose label ``min_raters`` raters chose, in the order of the ratings."""
    texts: dict[str, str] = {}
    for rating in ratings:
        texts.setdefault(rating.id, rating.text)
    for name, text in texts.items():
        votes = agreements[name].votes if name in agreements else {}
        labels = tuple(label for label in load_taxonomy("goemotions").labels if votes.get(label, 0) >= min_raters)
        if labels:
            yield Example(text, labels, Lens.AUTHOR, name)


def low_agreement(agreements: Mapping[str, Agreement], config: AgreementConfig) -> Filter:
    """Drops texts that most of two or more raters found unclear, or on none of whose labels enough of them agree."""

    def judge(example: Example) -> Finding | None:
        known = agreements.get(example.id)
        if known is None:
            return None
        asked = known.raters + known.unclear
        if asked > 1 and known.unclear > config.max_unclear * asked:
            return Finding("most raters found it unclear")
        best = max(known.share(label) for label in example.labels)
        return Finding("raters disagree") if known.raters > 1 and best < config.min_share else None

    return judge
