"""What comes out: one text read through one lens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.contract.lens import Lens


@dataclass(frozen=True, slots=True)
class Analysis:
    """The reading of one text; panel, JSON line, CSV row, API response and chart all show this.

    Attributes:
        text: as it was given.
        emotion: the top label in ``taxonomy``.
        fine_emotion: the best native label inside ``emotion``; the reasoning argues for it.
        confidence: the calibrated probability of ``emotion``, 0 to 1.
        abstained: whether the risk at this confidence is above the one that the model's calibration states.
        emotions: every label whose score passes its threshold, highest first; always holds ``emotion``.
        scores: probability per label of ``taxonomy`` in its order, summing to 1.
        coverage: share of the full-vocabulary mass that the native labels had before renormalising, 0 to 1.
        outside: mass of native labels that have no place in ``taxonomy``, 0 to 1.
        reasoning: one or two sentences, or None in fast mode.
        evidence: quoted spans of the reasoning that stand in the text exactly as quoted.
        model: name of the model.
    """

    text: str
    lens: Lens
    taxonomy: str
    mode: str
    emotion: str
    fine_emotion: str
    confidence: float
    abstained: bool
    emotions: tuple[str, ...]
    scores: Mapping[str, float]
    coverage: float
    outside: float
    reasoning: str | None
    evidence: tuple[str, ...]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The object that ``analyze --json`` prints, keys in the documented order."""
        return {
            "text": self.text,
            "lens": str(self.lens),
            "taxonomy": self.taxonomy,
            "mode": self.mode,
            "emotion": self.emotion,
            "fine_emotion": self.fine_emotion,
            "confidence": self.confidence,
            "abstained": self.abstained,
            "emotions": list(self.emotions),
            "scores": dict(self.scores),
            "coverage": self.coverage,
            "outside": self.outside,
            "reasoning": self.reasoning,
            "evidence": list(self.evidence),
            "model": self.model,
        }
