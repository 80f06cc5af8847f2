"""Judge a model by a protocol: its posteriors, its predictions, and, in explain mode, what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import NEUTRAL, load_taxonomy
from toolkit.evaluation import metrics
from toolkit.evaluation.answers import AnswerRates, rate_answers
from toolkit.evaluation.faithfulness import ReasoningQuality, measure_reasoning
from toolkit.evaluation.metrics import Bools, Floats
from toolkit.evaluation.protocols import Rows
from toolkit.evaluation.thresholds import cross_fit, cross_fit_abstention
from toolkit.inference.posterior import apply_temperature, coarsen

if TYPE_CHECKING:
    from toolkit.inference.calibration import Calibration

Progress = Callable[[int, int, str], None]
T = TypeVar("T")
CHUNK = 128
FALLBACK_THRESHOLD = 0.5
RESAMPLES = 500
FITTED_ON = "dev"


class Model(Protocol):
    """What can be judged: an :class:`~toolkit.inference.model.EmotionModel`, or a rival that only names labels.

    One that has ``answers`` as well can be judged in explain mode. One whose posteriors are not in the native taxonomy
    of its lens says in ``taxonomy`` in which they are.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def calibration(self) -> Calibration:
        """What was fitted for it on dev."""
        ...

    def posteriors(self, texts: Sequence[str], *, lens: Lens) -> tuple[Floats, Floats]:
        """Calibrated posteriors, shape (n, labels), and coverage, shape (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model made of n texts: calibrated posteriors (n, labels of ``taxonomy``), coverage (n,), and seconds."""

    posterior: Floats
    coverage: Floats
    seconds: float
    taxonomy: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model judged by one protocol; the fields are the keys of ``evaluate --json`` and explained there.

    ``accuracy``, F1, precision, recall and ``ece`` lie between 0 and 1, ``loss`` is in nats, ``intervals`` are 95 %
    bootstrap intervals over rows. ``subset_accuracy`` is the share of rows whose predicted set of labels is the gold
    set, ``hamming_loss`` the share of wrong decisions over rows and labels, ``top5_accuracy`` the share of rows with a
    gold label among the five most probable, ``false_neutral_rate`` the share of the rows without gold neutral whose
    most probable label is neutral: None where all rows have it, and through the reader's lens, which knows no neutral.
    What needs explain mode is None in fast mode. ``baselines`` has the figures
    of simpler models by their names, None where one could not be trained. ``overlap`` is the number of rows that the
    model has learned from.
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
    false_neutral_rate: float | None
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
    reasoning_quality: ReasoningQuality | None
    cross_fitted: bool
    intervals: dict[str, tuple[float, float]]
    overlap: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints, numbers to six decimals."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Abstention:
    """Which of n rows are answered.

    Attributes:
        below: the confidence under which a row is not; the mean of the cuts of all folds where they were cross-fitted.
        cross_fitted: whether every row was decided by a cut from the other folds.
        answered: shape (n,).
    """

    below: float
    cross_fitted: bool
    answered: Bools


@dataclass(frozen=True, slots=True)
class Judged:
    """An evaluation and what it was computed from.

    Attributes:
        scores: in the taxonomy of ``rows``, shape (n, labels), calibrated.
        predicted: what F1 is of, shape (n, labels).
        abstention: where the model's calibration abstains; None where it says nothing of it.
        answers: how the answers of explain mode are written; None in fast mode.
    """

    evaluation: Evaluation
    rows: Rows
    scores: Floats
    predicted: Bools
    abstention: Abstention | None
    answers: AnswerRates | None

    @property
    def confidence(self) -> Floats:
        """The probability of the most probable label of every row, shape (n,)."""
        return np.asarray(self.scores.max(1))

    @property
    def correct(self) -> Bools:
        """For every row whether its most probable label is among the gold labels, shape (n,)."""
        return metrics.top_correct(self.scores, self.rows.gold)


def overlap_marks(evaluation: Evaluation, name: str | None = None) -> list[str]:
    """A line for the model, called ``name``, and for every baseline that has learned from rows that judge it."""
    met = {name or evaluation.model: evaluation.overlap}
    met |= {rival: told["overlap"] for rival, told in evaluation.baselines.items() if told}
    return [
        f"{who} has learned from {count:,} of these {evaluation.n:,} texts, so its figures flatter it."
        for who, count in met.items()
        if count
    ]


def evaluate(model: Model, rows: Rows, *, mode: str = "explain", progress: Progress | None = None) -> Evaluation:
    """Let ``model`` read ``rows`` and judge it. Calls ``progress(done, total, step)`` where given."""
    return judge(model, rows, read(model, rows, progress), mode=mode, progress=progress).evaluation


def read(model: Model, rows: Rows, progress: Progress | None = None) -> Reading:
    """The posteriors of all rows, in order."""
    began = time.perf_counter()
    posterior, coverage = _read_all(model, rows.texts, rows.lens, "reading", progress)
    taxonomy = getattr(model, "taxonomy", rows.lens.native)
    return Reading(posterior, coverage, time.perf_counter() - began, taxonomy)


def _read_all(
    model: Model, texts: Sequence[str], lens: Lens, step: str, progress: Progress | None
) -> tuple[Floats, Floats]:
    parts = [
        model.posteriors(texts[start : start + CHUNK], lens=lens)
        for start in _track(range(0, len(texts), CHUNK), CHUNK, len(texts), step, progress)
    ]
    posterior, coverage = (np.concatenate(part) for part in zip(*parts, strict=True))
    return posterior, coverage


def judge(
    model: Model, rows: Rows, reading: Reading, *, mode: str = "explain", progress: Progress | None = None
) -> Judged:
    """Judge what was read; in explain mode a model that explains answers all texts first."""
    written, seconds = None, reading.seconds
    if mode == "explain" and hasattr(model, "answers"):
        began = time.perf_counter()
        answers = model.answers(rows.texts, lens=rows.lens)
        written = list(_track(answers, 1, len(rows.texts), "explaining", progress))
        seconds = time.perf_counter() - began
    scores, predicted, crossed = predict(reading.posterior, rows, model.calibration, reading.taxonomy)
    rates = rate_answers(written, rows.lens) if written else None
    summary = _summarise(model.name, rows, reading, scores, predicted, crossed, rates, seconds)
    if written:
        quality = measure_reasoning(
            lambda texts: _read_all(model, texts, rows.lens, "erasing words", progress)[0], written, rows.lens
        )
        summary = replace(summary, reasoning_quality=quality)
    return Judged(summary, rows, scores, predicted, _abstention(scores, rows, model.calibration), rates)


def predict(
    posterior: Floats, rows: Rows, calibration: Calibration, taxonomy: str | None = None
) -> tuple[Floats, Bools, bool]:
    """Scores and predictions in the taxonomy of ``rows``, and whether they were cross-fitted.

    Where F1 is of thresholds: on dev, on which the shipped ones were fitted, every row is judged by a temperature and
    thresholds from the other four of five folds (by no temperature where the model ships none); on another split by
    what the model ships, or by 0.5 and the most probable label where it ships no thresholds. Elsewhere the prediction
    is the most probable label, and only the temperature is cross-fitted on dev. ``taxonomy`` is that of ``posterior``
    where it is not the lens's own; then nothing is cross-fitted.
    """
    native = taxonomy in (None, rows.lens.native)

    def project(read: Floats) -> Floats:
        return coarsen(read, taxonomy or rows.lens.native, rows.taxonomy)[0]

    temperature = calibration.of(rows.lens).temperature
    if native and rows.native_gold is not None and rows.split == FITTED_ON:
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


def _abstention(scores: Floats, rows: Rows, calibration: Calibration) -> Abstention | None:
    """By what ships; on dev, on which that was fitted, by cuts from the other four of five folds."""
    below = calibration.of(rows.lens).abstain_below.get(rows.taxonomy)
    if below is None:
        return None
    confidence = np.asarray(scores.max(1))
    if rows.split != FITTED_ON or calibration.risk is None:
        return Abstention(below, False, confidence >= below)
    correct = metrics.top_correct(scores, rows.gold)
    answered, mean = cross_fit_abstention(confidence, correct, calibration.risk)
    return Abstention(mean, True, answered)


def _summarise(
    name: str,
    rows: Rows,
    reading: Reading,
    scores: Floats,
    predicted: Bools,
    crossed: bool,
    rates: AnswerRates | None,
    seconds: float,
) -> Evaluation:
    correct, in_five = metrics.top_correct(scores, rows.gold), metrics.top_correct(scores, rows.gold, 5)
    confidence, losses = scores.max(1), metrics.gold_losses(scores, rows.gold)
    by_label = metrics.score_labels(predicted, rows.gold)
    n, ece = len(correct), metrics.calibration_error(confidence, correct)
    neutral = _false_neutrals(scores, rows)

    def resampled(picked: np.ndarray) -> dict[str, float]:
        drawn = metrics.score_labels(predicted[picked], rows.gold[picked])
        return {
            "accuracy": correct[picked].mean(),
            "macro_f1": drawn.macro(by_label.support > 0),
            "weighted_f1": drawn.weighted(drawn.f1),
            "top5_accuracy": in_five[picked].mean(),
            "ece": metrics.calibration_error(confidence[picked], correct[picked]),
            "loss": losses[picked].mean(),
        }

    return Evaluation(
        protocol=rows.protocol,
        split=rows.split,
        mode="explain" if rates else "fast",
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
        top5_accuracy=float(in_five.mean()),
        false_neutral_rate=float(neutral.mean()) if len(neutral) else None,
        ece=ece,
        loss=float(losses.mean()),
        valid_rate=rates.valid if rates else None,
        quoted_rate=rates.quoted if rates else None,
        texts_per_second=n / seconds,
        per_label=_per_label(by_label, rows.taxonomy),
        baselines={},
        median_coverage=float(np.median(reading.coverage)),
        evidence_rate=rates.with_quote if rates else None,
        distinct_openings=rates.openings if rates else None,
        reasoning_quality=None,
        cross_fitted=crossed,
        intervals=metrics.bootstrap_intervals(resampled, n, resamples=RESAMPLES, centres={"ece": ece})
        | ({"false_neutral_rate": metrics.mean_interval(neutral)} if len(neutral) else {}),
    )


def _false_neutrals(scores: Floats, rows: Rows) -> Floats:
    """1 for every row without gold neutral that is taken for neutral, 0 for the others; none for a lens without it."""
    if NEUTRAL not in load_taxonomy(rows.lens.native).labels:
        return np.zeros(0)
    neutral = load_taxonomy(rows.taxonomy).index(NEUTRAL)
    return np.where(scores[~rows.gold[:, neutral]].argmax(1) == neutral, 1.0, 0.0)


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
