"""What ships with each adapter agrees with itself: calibration, figures and cards are of one and the same model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from toolkit.assets import asset
from toolkit.evaluation.calibrate import RISK
from toolkit.evaluation.thresholds import NEVER
from toolkit.inference.store import load_shipped

ADAPTERS = sorted(shipped.adapter for shipped in load_shipped().models.values())
TABLE = ("accuracy", "macro_f1", "ece")


def read(adapter: str, name: str) -> Any:
    return json.loads((asset("models", "adapters", adapter) / name).read_text(encoding="utf-8"))


def card_of(adapter: str) -> str:
    return (asset("models", "adapters", adapter) / "README.md").read_text(encoding="utf-8")


def told(figures: dict[str, Any], key: str) -> str:
    low, high = figures["intervals"][key]
    return f"{figures[key]:.3f} ({low:.3f} to {high:.3f})"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_thresholds_are_of_the_rule_that_is_in_use(adapter: str) -> None:
    """Every one is a twentieth of a unit of log-odds from the next, or so high that the label is never given."""
    calibration = read(adapter, "calibration.json")
    assert calibration["risk"] == RISK
    for lens in calibration["lenses"].values():
        for threshold in (one for labels in lens["thresholds"].values() for one in labels.values()):
            if threshold != NEVER:
                steps = math.log(threshold / (1 - threshold)) / 0.05
                assert abs(steps - round(steps)) < 0.02 + 1e-6 / (threshold * (1 - threshold))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_figures_and_calibration_are_of_one_measurement(adapter: str) -> None:
    figures = read(adapter, "metrics.json")["figures"]
    for lens in read(adapter, "calibration.json")["lenses"].values():
        assert lens["fitted_on"] in ("goemotions dev", "empathetic dev")
        for protocol, measured in lens["cross_fitted"].items():
            for key in TABLE:
                assert figures[protocol][key] == pytest.approx(measured[key], abs=2e-6), (protocol, key)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_card_says_what_was_measured(adapter: str) -> None:
    card, metrics = card_of(adapter), read(adapter, "metrics.json")
    protocols = [name for lens in read(adapter, "calibration.json")["lenses"].values() for name in lens["cross_fitted"]]
    for name in protocols:
        cells = " | ".join(told(metrics["figures"][name], key) for key in TABLE)
        assert f"| `{name}` | {metrics['figures'][name]['n']:,} | {cells} |" in card
    for name in ("golden", "situations_dev"):
        assert told(metrics["figures"][name], "accuracy") in card
        assert f"{metrics['figures'][name]['false_neutral_rate']:.3f}" in card
    assert f"Hamming loss {metrics['figures']['goemotions']['hamming_loss']:.3f}" in card
    assert metrics["date"] in card


def test_the_readme_has_the_figures_of_the_default_model() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for name, measured in read("author", "metrics.json")["figures"].items():
        if measured["split"] == "dev" and measured["mode"] == "fast":
            assert f"| `{name}` | {measured['n']:,} | {' | '.join(told(measured, key) for key in TABLE)} |" in readme


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_reasoning_on_comments_is_true_enough(adapter: str) -> None:
    """Of 500 rows of GoEmotions dev: valid, quoting the text, for the label that is given, by words it rests on."""
    measured = read(adapter, "metrics.json")["figures"]["reasoning"]
    quality = measured["reasoning_quality"]
    assert (measured["protocol"], measured["n"], measured["valid_rate"]) == ("goemotions", 500, 1.0)
    assert measured["quoted_rate"] >= 0.97
    assert quality["argued"] >= 0.95
    assert quality["erasure"]["comprehensiveness"] >= 2 * quality["erasure"]["random_comprehensiveness"]
