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
from toolkit.evaluation.protocols import PROTOCOLS, Protocol, mapped_gold
from toolkit.evaluation.thresholds import cross_fit, fit_abstention, fit_temperature, fit_thresholds
from toolkit.inference.posterior import apply_temperature, coarsen

RISK = 0.25


def fit_calibration(
    posterior: Floats, native_gold: Bools, lens: Lens, fitted_on: str, risk: float = RISK
) -> dict[str, Any]:
    """Temperature, thresholds and abstention for one lens, as ``calibration.json`` holds them under ``lenses``.

    Args:
        posterior: native and uncalibrated, shape (n, native labels of ``lens``).
        native_gold: shape (n, native labels).
        fitted_on: names the rows.
        risk: the error rate at which the answered rows stop; see :func:`fit_abstention`.

    Returns:
        What :class:`~toolkit.inference.calibration.LensCalibration` reads, with what five-fold cross-fitting measured
        under ``cross_fitted``. A temperature is taken only if it lowers the cross-fitted calibration error on the
        native labels.
    """
    protocols = {name: protocol for name, protocol in PROTOCOLS.items() if protocol.lens is lens}
    native = protocols[lens.native]
    plain, warm = (_measure(native, posterior, native_gold, tempered)["ece"] for tempered in (False, True))
    tempered = warm < plain
    temperature = round(fit_temperature(posterior, native_gold), 4) if tempered else 1.0
    thresholds, abstain_below, measured = {}, {}, {}
    for name, protocol in protocols.items():
        kept, gold = protocol_gold(protocol, native_gold)
        scores = _project(apply_temperature(posterior[kept], temperature), protocol)
        labels = load_taxonomy(protocol.taxonomy).labels
        thresholds[protocol.taxonomy] = dict(zip(labels, _rounded(fit_thresholds(scores, gold)), strict=True))
        cut = fit_abstention(scores.max(1), metrics.top_correct(scores, gold), risk)
        abstain_below[protocol.taxonomy] = round(cut, 6)
        measured[name] = _measure(protocol, posterior, native_gold, tempered)
    return {
        "fitted_on": fitted_on,
        "temperature": temperature,
        "thresholds": thresholds,
        "abstain_below": abstain_below,
        "cross_fitted": measured,
    }


def protocol_gold(protocol: Protocol, native_gold: Bools) -> tuple[Bools, Bools]:
    """Which of n rows a protocol judges, shape (n,), and their gold in its taxonomy, shape (rows kept, labels)."""
    gold = mapped_gold(native_gold, protocol.lens.native, protocol.taxonomy)
    kept: Bools = np.asarray(gold.any(1))
    if protocol.alone:
        kept &= native_gold.sum(1) == 1
    return kept, gold[kept]


def add_calibration(
    fitted: dict[str, Any], lens: Lens, path: Path, noise_line: float | None = None, risk: float = RISK
) -> None:
    """Write what was fitted for a lens to ``path``, and the noise line where there is one; what else it holds stays."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lenses = {**before.get("lenses", {}), str(lens): fitted}
    line = {} if noise_line is None else {"noise_line": round(noise_line, 6)}
    write_calibration({**before, "risk": risk, **line, "lenses": lenses}, path)


def write_calibration(calibration: dict[str, Any], path: Path) -> None:
    """Write it as JSON, to a temporary neighbour first."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(calibration, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _measure(protocol: Protocol, posterior: Floats, native_gold: Bools, tempered: bool) -> dict[str, float]:
    """Cross-fitted figures of a protocol, as ``evaluate`` reports them on dev."""
    kept, gold = protocol_gold(protocol, native_gold)
    scores, predicted = cross_fit(
        posterior[kept], native_gold[kept], gold, lambda native: _project(native, protocol), tempered=tempered
    )
    if not protocol.thresholded:
        predicted = metrics.one_hot_argmax(scores)
    correct = metrics.top_correct(scores, gold)
    return {
        "macro_f1": round(metrics.score_labels(predicted, gold).macro(), 6),
        "accuracy": round(float(correct.mean()), 6),
        "ece": round(metrics.calibration_error(scores.max(1), correct), 6),
    }


def _project(native: Floats, protocol: Protocol) -> Floats:
    return coarsen(native, protocol.lens.native, protocol.taxonomy)[0]


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in np.asarray(values)]
