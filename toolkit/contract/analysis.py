"""What comes out: one text read through one lens, or through both and compared."""

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


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far the two lenses part on one text; a difference between them contains one between their corpora.

    Attributes:
        score: Jensen-Shannon divergence in bits, 0 to 1, over the shared labels other than neutral; None where more
            than .6 of a lens's probability lies outside them.
        outside: per lens the probability outside those labels, 0 to 1.
        author_emotion, reader_emotion: the most probable of those labels through each lens.
        noise_line: what two models of the same lens rarely differ by; None where it was not measured.
        summary: one sentence.
    """

    score: float | None
    outside: Mapping[Lens, float]
    author_emotion: str
    reader_emotion: str
    noise_line: float | None
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """The object under ``divergence``, keys in the documented order."""
        return {
            "score": self.score,
            "outside": {str(lens): share for lens, share in self.outside.items()},
            "author_emotion": self.author_emotion,
            "reader_emotion": self.reader_emotion,
            "noise_line": self.noise_line,
            "summary": self.summary,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """One text through both lenses."""

    author: Analysis
    reader: Analysis
    divergence: Divergence

    @property
    def text(self) -> str:
        """The text as it was given."""
        return self.author.text

    def to_dict(self) -> dict[str, Any]:
        """The object that ``analyze --lens both --json`` prints."""
        return {
            "text": self.text,
            "author": self.author.to_dict(),
            "reader": self.reader.to_dict(),
            "divergence": self.divergence.to_dict(),
        }
