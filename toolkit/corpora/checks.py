"""What the checks say of one text: scores from 0 to 1, flags, and a few words on a flag where it needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.contract.example import Example
from toolkit.corpora.clean import CleaningReport
from toolkit.corpora.filters import Finding


@dataclass(frozen=True, slots=True)
class Check:
    """The scores of one text, each from 0 to 1, the names of those that are flagged, and notes on flags."""

    scores: Mapping[str, float]
    flags: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: Check) -> Check:
        """Both checks of the same text as one."""
        return Check({**self.scores, **other.scores}, self.flags + other.flags, {**self.notes, **other.notes})

    def to_row(self, example: Example) -> dict[str, Any]:
        """The JSON object of one text."""
        scores = {name: round(score, 4) for name, score in self.scores.items()}
        return {"id": example.id, "scores": scores, "flags": list(self.flags), "notes": dict(self.notes)}


def drop_flagged(
    examples: Sequence[Example], checks: Sequence[Check], report: CleaningReport, unwanted: Sequence[str]
) -> tuple[list[Example], list[Check]]:
    """The examples, with their checks, that bear no flag in ``unwanted``; the report counts the others."""
    if not unwanted:
        return list(examples), list(checks)
    report.filter("flags").read += len(examples)
    kept = []
    for example, check in zip(examples, checks, strict=True):
        hit = next((flag for flag in unwanted if flag in check.flags), None)
        if hit is None:
            kept.append((example, check))
        else:
            report.take_back("flags", example, Finding(f"flagged as {hit}"))
    return [example for example, _ in kept], [check for _, check in kept]
