"""Judge a model by a protocol: its posteriors, its predictions, and, in explain mode, what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import metrics
from toolkit.evaluation.answers import AnswerRates, rate_answers
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import Rows
from toolkit.evaluation.thresholds import cross_fit
from toolkit.inference.posterior import apply_temperature, coarsen

if TYPE_CHECKING:
    from toolkit.inference.calibration import Calibration
    from toolkit.inference.model import EmotionModel

Progress = Callable[[int, int, str], None]
T = TypeVar("T")
CHUNK = 128
FALLBACK_THRESHOLD = 0.5
RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model made of n texts: calibrated native posteriors (n, labels), coverage (n,), seconds it took."""

    posterior: Floats
    coverage: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model judged by one protocol; the fields are the keys of ``evaluate --json`` and explained there.

    ``accuracy``, F1, precision, recall and ``ece`` lie between 0 and 1, ``loss`` is in nats, ``intervals`` are 95 %
    bootstrap intervals over rows. ``subset_accuracy`` is the share of rows whose predicted set of labels is the gold
    set, ``hamming_loss`` the share of wrong decisions over rows and labels, ``top5_accuracy`` the share of rows with a
    gold label among the five most probable. What needs explain mode is None in fast mode.
    """

    protocol: str
    split: str | None
    mode: str
    model: str
    n: int
    accuracy: float
    macro_f1: float
    micro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    subset_accuracy: float
    hamming_loss: float
    top5_accuracy: float
    ece: float
    loss: float
    valid_rate: float | None
    quoted_rate: float | None
    texts_per_second: float
    per_label: dict[str, dict[str, float]]
    baselines: dict[str, Any]
    median_coverage: float
    evidence_rate: float | None
    distinct_openings: int | None
    cross_fitted: bool
    intervals: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints, numbers to six decimals."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Judged:
    """An evaluation and what it was computed from.

    Attributes:
        scores: in the taxonomy of ``rows``, shape (n, labels), calibrated.
        predicted: what F1 is of, shape (n, labels).
        abstain_below: the confidence under which the model's calibration abstains; None where it says nothing of it.
        answers: what explain mode measured; None in fast mode.
    """

    evaluation: Evaluation
    rows: Rows
    scores: Floats
    predicted: Bools
    abstain_below: float | None
    answers: AnswerRates | None

    @property
    def confidence(self) -> Floats:
        """The probability of the most probable label of every row, shape (n,)."""
        return np.asarray(self.scores.max(1))

    @property
    def correct(self) -> Bools:
        """For every row whether its most probable label is among the gold labels, shape (n,)."""
        return metrics.top_correct(self.scores, self.rows.gold)


def evaluate(model: EmotionModel, rows: Rows, *, mode: str = "explain", progress: Progress | None = None) -> Evaluation:
    """Let ``model`` read ``rows`` and judge it. Calls ``progress(done, total, step)`` where given."""
    return judge(model, rows, read(model, rows, progress), mode=mode, progress=progress).evaluation


def read(model: EmotionModel, rows: Rows, progress: Progress | None = None) -> Reading:
    """The posteriors of all rows, in order."""
    began = time.perf_counter()
    parts = []
    for start in _track(range(0, len(rows.texts), CHUNK), CHUNK, len(rows.texts), "reading", progress):
        parts.append(model.posteriors(rows.texts[start : start + CHUNK], lens=rows.lens))
    posterior, coverage = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Reading(posterior, coverage, time.perf_counter() - began)


def judge(
    model: EmotionModel, rows: Rows, reading: Reading, *, mode: str = "explain", progress: Progress | None = None
) -> Judged:
    """Judge what was read; in explain mode the model answers all texts first."""
    rates, seconds = None, reading.seconds
    if mode == "explain":
        began = time.perf_counter()
        answers = model.answers(rows.texts, lens=rows.lens)
        rates = rate_answers(_track(answers, 1, len(rows.texts), "explaining", progress), rows.lens)
        seconds = time.perf_counter() - began
    scores, predicted, crossed = predict(reading.posterior, rows, model.calibration)
    summary = _summarise(model.name, mode, rows, reading, scores, predicted, crossed, rates, seconds)
    cut = model.calibration.of(rows.lens).abstain_below.get(rows.taxonomy)
    return Judged(summary, rows, scores, predicted, cut, rates)


def predict(posterior: Floats, rows: Rows, calibration: Calibration) -> tuple[Floats, Bools, bool]:
    """Scores and predictions in the taxonomy of ``rows``, and whether they were cross-fitted.

    Where F1 is of thresholds: on dev, on which the shipped ones were fitted, every row is judged by a temperature and
    thresholds from the other four of five folds (by no temperature where the model ships none); on another split by
    what the model ships, or by 0.5 and the most probable label where it ships no thresholds. Elsewhere the prediction
    is the most probable label, and only the temperature is cross-fitted on dev.
    """

    def project(native: Floats) -> Floats:
        return coarsen(native, rows.lens.native, rows.taxonomy)[0]

    temperature = calibration.of(rows.lens).temperature
    if rows.split == "dev" and rows.native_gold is not None:
        raw = apply_temperature(posterior, 1.0 / temperature)
        tempered = temperature != 1.0
        scores, predicted = cross_fit(raw, rows.native_gold, rows.gold, project, tempered=tempered)
        if rows.thresholded:
            return scores, predicted, True
        return scores, metrics.one_hot_argmax(scores), tempered
    scores = project(posterior)
    top = metrics.one_hot_argmax(scores)
    if not rows.thresholded:
        return scores, top, False
    fitted = calibration.of(rows.lens).thresholds.get(rows.taxonomy)
    if fitted is None:
        return scores, (scores >= FALLBACK_THRESHOLD) | top, False
    cuts = [fitted.get(label, FALLBACK_THRESHOLD) for label in load_taxonomy(rows.taxonomy).labels]
    return scores, scores >= np.array(cuts), False


def _summarise(
    name: str,
    mode: str,
    rows: Rows,
    reading: Reading,
    scores: Floats,
    predicted: Bools,
    crossed: bool,
    rates: AnswerRates | None,
    seconds: float,
) -> Evaluation:
    correct = metrics.top_correct(scores, rows.gold)
    by_label = metrics.score_labels(predicted, rows.gold)
    n = len(correct)

    def macro_f1(picked: np.ndarray) -> float:
        return metrics.score_labels(predicted[picked], rows.gold[picked]).macro()

    return Evaluation(
        protocol=rows.protocol,
        split=rows.split,
        mode=mode,
        model=name,
        n=n,
        accuracy=float(correct.mean()),
        macro_f1=by_label.macro(),
        micro_f1=by_label.micro_f1,
        weighted_precision=by_label.weighted(by_label.precision),
        weighted_recall=by_label.weighted(by_label.recall),
        weighted_f1=by_label.weighted(by_label.f1),
        subset_accuracy=float((predicted == rows.gold).all(1).mean()),
        hamming_loss=float((predicted != rows.gold).mean()),
        top5_accuracy=float(metrics.top_correct(scores, rows.gold, 5).mean()),
        ece=metrics.calibration_error(scores.max(1), correct),
        loss=metrics.gold_loss(scores, rows.gold),
        valid_rate=rates.valid if rates else None,
        quoted_rate=rates.quoted if rates else None,
        texts_per_second=n / seconds,
        per_label=_per_label(by_label, rows.taxonomy),
        baselines={},
        median_coverage=float(np.median(reading.coverage)),
        evidence_rate=rates.with_quote if rates else None,
        distinct_openings=rates.openings if rates else None,
        cross_fitted=crossed,
        intervals={
            "accuracy": metrics.bootstrap_interval(lambda p: float(correct[p].mean()), n, resamples=RESAMPLES),
            "macro_f1": metrics.bootstrap_interval(macro_f1, n, resamples=RESAMPLES),
        },
    )


def _per_label(scores: metrics.LabelScores, taxonomy: str) -> dict[str, dict[str, float]]:
    columns = zip(scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, (p, r, f, s) in zip(load_taxonomy(taxonomy).labels, columns, strict=True)
    }


def _track(items: Iterable[T], step: int, total: int, name: str, progress: Progress | None) -> Iterator[T]:
    tell = progress or (lambda *_: None)
    tell(0, total, name)
    for count, item in enumerate(items, 1):
        yield item
        tell(min(count * step, total), total, name)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
