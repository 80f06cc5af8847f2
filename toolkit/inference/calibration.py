"""What was fitted on dev and ships with a model: temperatures, thresholds, and when to abstain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.contract.lens import Lens
from toolkit.errors import ModelError


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted on the dev split named in ``fitted_on``; the defaults change nothing.

    Attributes:
        temperature: per lens; above 1 the model was too sure.
        thresholds: per taxonomy and label the score from which the label counts as present.
        abstain_below: per taxonomy the confidence under which the error rate was above ``risk``.
        risk: the error rate that ``abstain_below`` was chosen for.
    """

    fitted_on: str = ""
    temperature: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    abstain_below: Mapping[str, float] = field(default_factory=dict)
    risk: float | None = None

    def temperature_of(self, lens: Lens) -> float:
        """The temperature of a lens, 1.0 where none was fitted."""
        return self.temperature.get(str(lens), 1.0)

    def present(self, taxonomy: str, scores: Mapping[str, float]) -> list[str]:
        """The labels at or above their threshold (0.5 where none was fitted), highest score first."""
        fitted = self.thresholds.get(taxonomy, {})
        found = [label for label, score in scores.items() if score >= fitted.get(label, 0.5)]
        return sorted(found, key=lambda label: -scores[label])


def parse_calibration(source: str) -> Calibration:
    """A calibration from its JSON.

    Raises:
        ModelError: where it is damaged.
    """
    try:
        raw: dict[str, Any] = json.loads(source)
        known = {key: raw[key] for key in Calibration.__slots__ if key in raw}
        return Calibration(**known)
    except (ValueError, TypeError) as error:
        raise ModelError(f"The model's calibration is damaged: {error}.", "Rebuild the model.") from None
