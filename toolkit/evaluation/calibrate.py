"""Fit what ships with a model, and say what the same procedure is worth on rows that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import metrics
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import PROTOCOLS, mapped_gold
from toolkit.evaluation.thresholds import cross_fit, fit_abstention, fit_temperature, fit_thresholds
from toolkit.inference.posterior import apply_temperature, coarsen

RISK = 0.25


def fit_calibration(posterior: Floats, native_gold: Bools, fitted_on: str, risk: float = RISK) -> dict[str, Any]:
    """Temperature, thresholds and abstention for the author lens, as ``calibration.json`` holds them.

    Args:
        posterior: native and uncalibrated, shape (n, 28).
        native_gold: shape (n, 28).
        fitted_on: names the rows.
        risk: the error rate at which the answered rows stop; see :func:`fit_abstention`.

    Returns:
        The object that :func:`~toolkit.inference.calibration.parse_calibration` reads, with what five-fold
        cross-fitting measured under ``cross_fitted``. A temperature is taken only if it lowers the cross-fitted
        calibration error on the native labels.
    """
    plain, warm = (_measure("goemotions", posterior, native_gold, tempered)["ece"] for tempered in (False, True))
    tempered = warm < plain
    temperature = round(fit_temperature(posterior, native_gold), 4) if tempered else 1.0
    thresholds, abstain_below, measured = {}, {}, {}
    for protocol in PROTOCOLS:
        kept, gold = protocol_gold(protocol, native_gold)
        scores = _project(apply_temperature(posterior[kept], temperature), protocol)
        fitted = fit_thresholds(scores, gold)
        thresholds[protocol] = dict(zip(load_taxonomy(protocol).labels, _rounded(fitted), strict=True))
        cut = fit_abstention(scores.max(1), metrics.top_correct(scores, gold), risk)
        abstain_below[protocol] = round(cut, 6)
        measured[protocol] = _measure(protocol, posterior, native_gold, tempered)
    return {
        "fitted_on": fitted_on,
        "temperature": {str(Lens.AUTHOR): temperature},
        "thresholds": thresholds,
        "abstain_below": abstain_below,
        "risk": risk,
        "cross_fitted": measured,
    }


def protocol_gold(protocol: str, native_gold: Bools) -> tuple[Bools, Bools]:
    """Which of n rows a protocol judges, shape (n,), and their gold in its taxonomy, shape (rows kept, labels)."""
    gold = mapped_gold(native_gold, Lens.AUTHOR.native, protocol)
    kept: Bools = np.asarray(gold.any(1))
    if not PROTOCOLS[protocol]:
        kept &= native_gold.sum(1) == 1
    return kept, gold[kept]


def write_calibration(calibration: dict[str, Any], path: Path) -> None:
    """Write it as JSON, to a temporary neighbour first."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(calibration, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _measure(protocol: str, posterior: Floats, native_gold: Bools, tempered: bool) -> dict[str, float]:
    """Cross-fitted figures of a protocol, as ``evaluate`` reports them on dev."""
    kept, gold = protocol_gold(protocol, native_gold)
    scores, predicted = cross_fit(
        posterior[kept], native_gold[kept], gold, lambda native: _project(native, protocol), tempered=tempered
    )
    if not PROTOCOLS[protocol]:
        predicted = metrics.one_hot_argmax(scores)
    correct = metrics.top_correct(scores, gold)
    return {
        "macro_f1": round(metrics.score_labels(predicted, gold).macro(), 6),
        "accuracy": round(float(correct.mean()), 6),
        "ece": round(metrics.calibration_error(scores.max(1), correct), 6),
    }


def _project(native: Floats, taxonomy: str) -> Floats:
    return coarsen(native, Lens.AUTHOR.native, taxonomy)[0]


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in np.asarray(values)]
