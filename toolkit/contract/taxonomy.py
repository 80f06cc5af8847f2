"""Taxonomies: ordered labels with definitions, and the mappings from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from toolkit.assets import asset
from toolkit.errors import UsageError

NAMES = ("goemotions", "ekman", "sentiment", "shared10", "empathetic")
NEUTRAL = "neutral"  # of a text that gives no feeling away, in every taxonomy but empathetic


@dataclass(frozen=True, slots=True)
class Label:
    """One emotion: its name, its definition in appraisal terms, and where it goes in other taxonomies.

    ``maps`` gives the label in another taxonomy; ``left_out`` the reason why there is none.
    """

    name: str
    definition: str
    maps: dict[str, str]
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """An ordered set of labels."""

    name: str
    title: str
    source: str
    entries: tuple[Label, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names in their fixed order; every vector of scores follows it."""
        return tuple(entry.name for entry in self.entries)

    def index(self, label: str) -> int:
        """The position of a label.

        Raises:
            UsageError: for a label that the taxonomy lacks.
        """
        try:
            return self.labels.index(label)
        except ValueError:
            raise UsageError(
                f"The taxonomy {self.name} has no label {label!r}.", f"Its labels: {', '.join(self.labels)}."
            ) from None

    def definition(self, label: str) -> str:
        """What must be true of a situation for this emotion to arise."""
        return self.entries[self.index(label)].definition

    def mapping(self, target: str) -> tuple[int | None, ...]:
        """For each label its position in the taxonomy ``target``, or None where it is left out."""
        if target == self.name:
            return tuple(range(len(self.entries)))
        other = load_taxonomy(target)
        return tuple(other.index(e.maps[target]) if target in e.maps else None for e in self.entries)


@cache
def load_taxonomy(name: str) -> Taxonomy:
    """The taxonomy of that name, read from ``prompts/taxonomies``.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in NAMES:
        raise UsageError(f"There is no taxonomy {name!r}.", f"Known: {', '.join(NAMES)}.")
    raw: dict[str, Any] = yaml.safe_load(asset("prompts", "taxonomies", f"{name}.yaml").read_text(encoding="utf-8"))
    entries = tuple(
        Label(row["name"], row.get("definition", ""), row.get("maps", {}), row.get("left_out", {}))
        for row in raw["labels"]
    )
    return Taxonomy(raw["name"], raw["title"], raw.get("source", ""), entries)
