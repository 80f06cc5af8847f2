"""What goes in: one labelled text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.contract.lens import Lens


@dataclass(frozen=True, slots=True)
class Example:
    """One text with its labels.

    Attributes:
        text: as it stands in the corpus; the prompt strips outer white space, nothing else.
        labels: gold labels in the native taxonomy of ``lens``, in taxonomy order; at least one.
        soft: optional shares over labels that sum to 1; where absent, ``labels`` share equally.
        weight: how much the example counts in training; 0 drops it.
        reasoning: one or two sentences that argue for ``labels[0]``, or None.
    """

    text: str
    labels: tuple[str, ...]
    lens: Lens = Lens.AUTHOR
    id: str = ""
    soft: Mapping[str, float] | None = None
    weight: float = 1.0
    reasoning: str | None = None

    def target(self) -> dict[str, float]:
        """Shares over labels, summing to 1: what training aims at."""
        if self.soft:
            return dict(self.soft)
        return {label: 1.0 / len(self.labels) for label in self.labels}
