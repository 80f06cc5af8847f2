"""`evaluate --baselines`: simpler models, trained on the train split of the same corpus, judged by the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.assets import asset
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.errors import DataError, EmotionLRMError
from toolkit.evaluation.calibrate import fit_calibration
from toolkit.evaluation.evaluate import Evaluation, Judged, judge, read
from toolkit.evaluation.protocols import Rows, label_matrix
from toolkit.evaluation.rivals import Progress, Rival, Tell, fit_majority, fit_words, train_encoder
from toolkit.inference.calibration import parse_calibration

if TYPE_CHECKING:
    from toolkit.training.config import EncoderConfig

NAMES = ("majority", "tfidf", "encoder")
KEYS = (
    "model", "n", "accuracy", "macro_f1", "micro_f1", "weighted_precision", "weighted_recall", "weighted_f1", "ece",
    "loss", "texts_per_second", "intervals",
)  # fmt: skip


def judge_baselines(
    rows: Rows, source: Path | None, folder: Path, tell: Tell, progress: Progress
) -> dict[str, Judged | None]:
    """Train every baseline on the train split of the lens's corpus and let it read ``rows``.

    Args:
        folder: keeps the trained encoders.
        tell: hears one line for each baseline that cannot be trained, and how long the encoder takes.

    Returns:
        By name; None where the train split or a package is missing.
    """
    try:
        examples = list(_examples(rows.lens, "train", source))
    except DataError as error:
        tell(f"No baselines: {error} {error.hint}")
        return dict.fromkeys(NAMES)
    fitted = fit_rivals(examples, rows.lens, rows.lens.native, folder, tell, progress)
    return {
        name: judge_rival(calibrated(rival, rows, source), rows, progress) if rival else None
        for name, rival in fitted.items()
    }


def fit_rivals(
    examples: Sequence[Example], lens: Lens, taxonomy: str, folder: Path, tell: Tell, progress: Progress, **changes: Any
) -> dict[str, Rival | None]:
    """Every baseline, fitted on the examples; None, and a line to ``tell``, where one cannot be.

    Args:
        folder: keeps the trained encoders.
        changes: to the configuration of the encoder.
    """

    def fit_encoder() -> Rival:
        return train_encoder(encoder_config(lens, taxonomy, **changes), examples, folder, tell, progress)

    fits: dict[str, Callable[[], Rival]] = {
        "majority": lambda: fit_majority(examples, lens, taxonomy),
        "tfidf": lambda: fit_words(examples, lens, taxonomy),
        "encoder": fit_encoder,
    }
    found: dict[str, Rival | None] = {}
    for name, fit in fits.items():
        try:
            found[name] = fit()
        except EmotionLRMError as error:
            tell(f"No baseline {name}: {error} {error.hint}")
            found[name] = None
    return found


def encoder_config(lens: Lens, taxonomy: str, **changes: Any) -> EncoderConfig:
    """``models/configs/encoder.yaml`` for a lens and the labels of a taxonomy."""
    from toolkit.training.config import DataSettings, EncoderConfig, LensData

    shipped = load_config(EncoderConfig, asset("models", "configs", "encoder.yaml"))
    data = DataSettings(**{str(one): LensData() if one is lens else None for one in Lens})
    return shipped.model_copy(update={"data": data, "taxonomy": taxonomy, **changes})


def judge_rival(rival: Rival, rows: Rows, progress: Progress) -> Judged:
    """Let it read ``rows``. One that always says the same has no use for thresholds: its label is the likeliest."""
    if rival.name == "majority":
        rows = replace(rows, thresholded=False)
    return judge(rival, rows, read(rival, rows, progress), mode="fast")


def calibrated(rival: Rival, rows: Rows, source: Path | None) -> Rival:
    """The rival with thresholds fitted on dev, as ours has them, where they are needed and dev is there.

    On dev itself everything is cross-fitted.
    """
    if not rows.thresholded or rows.split == "dev" or rival.name == "majority":
        return rival
    try:
        dev = list(_examples(rows.lens, "dev", source))
    except DataError:
        return rival
    gold = label_matrix((example.labels for example in dev), len(dev), rows.lens.native)
    posterior = np.asarray(rival.probabilities([example.text for example in dev]))
    fitted = fit_calibration(posterior, gold, rows.lens, f"{rows.lens.native} dev")
    return replace(rival, calibration=parse_calibration(json.dumps({"lenses": {str(rows.lens): fitted}})))


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """What ``evaluate --json`` shows of a baseline."""
    told = evaluation.to_dict()
    return {key: told[key] for key in KEYS}


def _examples(lens: Lens, split: str, source: Path | None) -> Any:
    return read_goemotions(split, source) if lens is Lens.AUTHOR else read_empathetic(split, source)
