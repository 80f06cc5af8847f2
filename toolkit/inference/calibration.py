"""What was fitted on dev and ships with a model: temperatures, thresholds, and when to abstain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.contract.lens import Lens
from toolkit.errors import ModelError


@dataclass(frozen=True, slots=True)
class LensCalibration:
    """What was fitted for one lens on the split named in ``fitted_on``; the defaults change nothing.

    Attributes:
        temperature: above 1 the model was too sure.
        thresholds: per taxonomy and label the score from which the label counts as present.
        abstain_below: per taxonomy the confidence under which the error rate was above the risk.
    """

    fitted_on: str = ""
    temperature: float = 1.0
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    abstain_below: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of every lens that has one.

    Attributes:
        lenses: by the lens's name.
        risk: the error rate that ``abstain_below`` was chosen for.
        noise_line: the divergence that the author's lens of this model and the author-only model rarely exceed.
    """

    lenses: Mapping[str, LensCalibration] = field(default_factory=dict)
    risk: float | None = None
    noise_line: float | None = None

    def of(self, lens: Lens) -> LensCalibration:
        """The calibration of a lens; one that changes nothing where none was fitted."""
        return self.lenses.get(str(lens), LensCalibration())

    def present(self, lens: Lens, taxonomy: str, scores: Mapping[str, float]) -> list[str]:
        """The labels at or above their threshold (0.5 where none was fitted), highest score first."""
        fitted = self.of(lens).thresholds.get(taxonomy, {})
        found = [label for label, score in scores.items() if score >= fitted.get(label, 0.5)]
        return sorted(found, key=lambda label: -scores[label])

    def abstains(self, lens: Lens, taxonomy: str, confidence: float) -> bool:
        """Whether answers of so little confidence were wrong more often than ``risk`` allows."""
        return confidence < self.of(lens).abstain_below.get(taxonomy, 0.0)


def parse_calibration(source: str) -> Calibration:
    """A calibration from its JSON.

    Raises:
        ModelError: where it is damaged.
    """
    try:
        raw: dict[str, Any] = json.loads(source)
        lenses = {lens: LensCalibration(**_known(found)) for lens, found in raw.get("lenses", {}).items()}
        return Calibration(lenses, raw.get("risk"), raw.get("noise_line"))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"The model's calibration is damaged: {error}.", "Rebuild the model.") from None


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in LensCalibration.__slots__ if key in found}
