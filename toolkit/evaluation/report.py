"""The report of an evaluation, of one model or of several side by side: a page, Markdown, JSON and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import curves, plots
from toolkit.evaluation.document import (
    Block,
    Cell,
    Figure,
    Heading,
    Table,
    Tiles,
    Words,
    between,
    numbered,
    thinned,
    write_document,
)
from toolkit.evaluation.evaluate import Judged, overlap_marks
from toolkit.evaluation.reasoning_blocks import reasoning_blocks

MISTAKES = 20
_HEADLINE = {
    "accuracy": "accuracy",
    "macro-F1": "macro_f1",
    "weighted F1": "weighted_f1",
    "among the top five": "top5_accuracy",
    "wrongly neutral": "false_neutral_rate",
    "calibration error": "ece",
    "loss in nats": "loss",
}
_SHOWN = 600  # characters of a text; a row may be a whole page


def write_report(
    judged: Sequence[Judged], folder: Path, further: Iterable[Block] = (), told: Mapping[str, Any] = {}
) -> list[str]:
    """Write ``report.html``, ``report.md``, ``report.json`` and the pictures into ``folder``; returns their names.

    The texts of the rows stand in ``report.html`` alone, so that the other files can be passed on.

    Args:
        judged: one or more models, judged by the same rows; the others are compared with the first.
        further: what a protocol has to say of its own; it stands behind the headline figures.
        told: the same as further keys of ``report.json``.

    Raises:
        EmotionLRMError: where matplotlib is missing.
        FileError: where the folder cannot be written.
    """
    plots.require_matplotlib()
    named = dict(zip(numbered([one.evaluation.model for one in judged]), judged, strict=True))
    first = judged[0].evaluation
    split = f", {first.split} split" if first.split else ""
    title = f"{Path(first.protocol).name}{split}: {' and '.join(named)}"
    return write_document(folder, title, _blocks(named, further), {**to_json(named), **told})


# What stands in it


def _blocks(named: Mapping[str, Judged], further: Iterable[Block]) -> Iterator[Block]:
    yield from _headline(named)
    yield from further
    yield from _beside(next(iter(named.values())))
    yield from _labels(named)
    yield from _confusion(named)
    yield from _certainty(named)
    yield from reasoning_blocks(named)
    name, first = next(iter(named.items()))
    yield from _mistakes(first, name if len(named) > 1 else "the model")


def _headline(named: Mapping[str, Judged]) -> Iterator[Block]:
    first = next(iter(named.values()))
    yield Words(
        f"{first.evaluation.n:,} texts, {len(first.rows.gold[0])} labels ({first.rows.taxonomy}). {_method(first)}"
    )
    yield from (Words(mark) for name, one in named.items() for mark in overlap_marks(one.evaluation, name))
    if len(named) == 1:
        yield Tiles(_figures(first))
        return
    columns = zip(*map(_figures, named.values()), strict=True)
    rows = [
        (line[0][0], *(f"{value} ({remark})" if remark else value for _, value, remark in line)) for line in columns
    ]
    yield Table(("", *named), rows)
    yield Table(
        ("accuracy on the same rows", "difference", "95 % interval"),
        [(f"{d['model']} less {d['than']}", d["accuracy"], between(d["interval"])) for d in _differences(named)],
    )


def _beside(judged: Judged) -> Iterator[Block]:
    told = judged.evaluation
    if not told.baselines:
        return
    yield Heading("Beside simpler models")
    keys = ("accuracy", "macro_f1", "weighted_f1", "loss")
    models = {told.model: told.to_dict(), **told.baselines}
    rows = [
        (name, *(_with_interval(one, key) for key in keys), round(one["texts_per_second"]) if one else None)
        for name, one in models.items()
    ]
    yield Table(("", "accuracy", "macro-F1", "weighted F1", "loss in nats", "texts a second"), rows)
    yield Words(
        "Trained on the train split of the same corpus: majority always names the label that is most frequent there, "
        "tfidf is a logistic regression over words and pairs of words, encoder a small encoder with a classification "
        "head. A dash stands for what could not be trained here."
    )


def _with_interval(told: Mapping[str, Any] | None, key: str) -> str | None:
    return f"{told[key]:.3f} ({between(told['intervals'][key])})" if told else None


def _method(judged: Judged) -> str:
    """How the figures came about, in a sentence or two."""
    f1 = "the labels whose score passes its threshold" if judged.rows.thresholded else "the most probable label"
    told = f"Accuracy is of the most probable label, F1 of {f1}; intervals are 95 % bootstrap intervals over rows."
    if judged.evaluation.cross_fitted:
        told += " What is fitted on dev was fitted on the other four of five folds of every row."
    return told


def _figures(judged: Judged) -> list[tuple[str, str, str]]:
    """Name and value of the headline figures, and a remark: their interval."""
    found = judged.evaluation
    return [
        *(
            (name, f"{getattr(found, key):.3f}", between(found.intervals[key]))
            for name, key in _HEADLINE.items()
            if getattr(found, key) is not None
        ),
        ("texts a second", f"{found.texts_per_second:,.1f}", f"{found.mode} mode"),
    ]


def _labels(named: Mapping[str, Judged]) -> Iterator[Block]:
    first = next(iter(named.values()))
    order = _by_support(first)
    yield Heading("Label by label")
    scores = {name: {label: one.evaluation.per_label[label]["f1"] for label in order} for name, one in named.items()}
    yield Figure(
        "f1_by_label.png",
        plots.bars(scores, "F1 by label, the most frequent label on top", "F1", written="{:.2f}"),
        "F1 of every label",
    )
    yield Table(("label", *_label_columns(named), "support"), [_label_row(label, named) for label in order])
    yield Heading("How often each label is true, and how often it is predicted")
    true = {"gold": _distribution(first, "true")}
    predicted = {name: _distribution(one, "predicted") for name, one in named.items()}
    who = "the model predicts" if len(named) == 1 else "each model predicts"
    for kind, series, told in (
        ("true", true, "Labels in the gold data"),
        ("predicted", predicted, f"Labels that {who}"),
    ):
        counts = {name: {label: found[label] for label in order} for name, found in series.items()}
        yield Figure(f"{kind}_label_distribution.png", plots.bars(counts, told, "texts"), told)
    yield Words("A text with several labels counts under each of them.")


def _label_columns(named: Mapping[str, Judged]) -> tuple[str, ...]:
    return ("precision", "recall", "F1") if len(named) == 1 else tuple(f"F1, {name}" for name in named)


def _label_row(label: str, named: Mapping[str, Judged]) -> tuple[Cell, ...]:
    found = [one.evaluation.per_label[label] for one in named.values()]
    keys = ("precision", "recall", "f1") if len(named) == 1 else ("f1",)
    return (label, *(scores[key] for scores in found for key in keys), int(found[0]["support"]))


def _confusion(named: Mapping[str, Judged]) -> Iterator[Block]:
    yield Heading("Which labels are taken for which")
    sides = ("true label", "most probable label")
    for number, (name, one) in enumerate(named.items(), 1):
        labels = load_taxonomy(one.rows.taxonomy).labels
        counts = curves.confusion(one.scores, one.rows.gold)
        title = "Confusion matrix" if len(named) == 1 else f"Confusion matrix of {name}"
        if number == 1:
            drawn = plots.matrix_map(counts, (labels, labels), f"{title}: texts", sides, shares=False)
            yield Figure(
                "confusion_matrix.png", drawn, f"{title}: true labels down, most probable ones across, in texts"
            )
        shares = curves.in_shares(counts)
        drawn = plots.matrix_map(shares, (labels, labels), f"{title}: % of the true label", sides, shares=True)
        name = "confusion_matrix_normalised.png" if number == 1 else f"confusion_matrix_normalised_{number}.png"
        yield Figure(name, drawn, f"{title}: the same in per cent of every true label")
    yield Words(
        f"The {counts.sum():,} texts with exactly one gold label; 0 is left blank, and so is what rounds to 0 %."
    )


def _certainty(named: Mapping[str, Judged]) -> Iterator[Block]:
    yield Heading("How sure it is, and how right")
    bins = {name: curves.reliability(one.confidence, one.correct) for name, one in named.items()}
    title = f"Reliability: {len(next(iter(bins.values())).rows)} bins of equally many texts"
    yield Figure("reliability.png", plots.reliability_diagram(bins, title), "Share correct against mean confidence")
    if len(bins) == 1:
        (only,) = bins.values()
        yield Table(
            ("mean confidence", "share correct", "texts"),
            [(float(c), float(r), int(n)) for c, r, n in zip(only.confidence, only.correct, only.rows, strict=True)],
        )
    lines = {name: curves.risk_coverage(one.confidence, one.correct) for name, one in named.items()}
    points = {name: point for name, one in named.items() if (point := _abstention(one)) is not None}
    drawn = plots.risk_coverage_plot(
        lines, {n: (coverage, risk) for n, (_, coverage, risk) in points.items() if risk is not None},
        "Risk and coverage: wrong answers when only the surest are given",
    )  # fmt: skip
    yield Figure("risk_coverage.png", drawn, "Share wrong among the answered against the share of texts answered")
    for name, line in lines.items():
        yield Words(_abstention_words(name, line.area, named[name]))


def _abstention(judged: Judged) -> tuple[float, float, float | None] | None:
    """The confidence below which the model abstains, coverage and risk there; None where it has none."""
    if judged.abstention is None:
        return None
    return judged.abstention.below, *curves.risk_of(judged.abstention.answered, judged.correct)


def _abstention_words(name: str, area: float, judged: Judged) -> str:
    told = (
        f"{name}: the area under the curve is {area:.3f}; were confidence no guide, it would be the share wrong of all."
    )
    point = _abstention(judged)
    if judged.abstention is None or point is None:
        return f"{told} No abstention ships for these labels."
    cut, coverage, risk = point
    told += f" Below a confidence of {cut:.3f} it abstains"
    if judged.abstention.cross_fitted:
        told += " (the mean of five cuts, each of which decides the fold that it was not fitted on)"
    if risk is None:
        return f"{told}, and so it answers none of these texts."
    return f"{told}: it answers {100 * coverage:.1f} % of these texts, {100 * risk:.1f} % of them wrongly."


def _mistakes(judged: Judged, name: str) -> Iterator[Block]:
    worst = _worst(judged)
    if not worst:
        return
    yield Heading(f"Where {name} is sure and wrong")
    yield Words("The texts are shown here only, not in report.md or report.json; gold labels can be wrong, too.")
    rows = [
        (_cut(judged.rows.texts[row["row"]]), ", ".join(row["gold"]), row["predicted"], row["confidence"])
        for row in worst
    ]
    yield Table(("text", "gold", "most probable", "confidence"), rows, foreign=True)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


# Figures


def to_json(named: Mapping[str, Judged]) -> dict[str, Any]:
    """Everything that the report shows but the texts, with the models in their order."""
    return {
        "models": [{"name": name, **_model_json(one)} for name, one in named.items()],
        "differences": _differences(named),
    }


def _model_json(judged: Judged) -> dict[str, Any]:
    point = _abstention(judged)
    bins = curves.reliability(judged.confidence, judged.correct)
    line = curves.risk_coverage(judged.confidence, judged.correct)
    steps = [{"coverage": float(c), "risk": float(r)} for c, r in zip(line.coverage, line.risk, strict=True)]
    return {
        **judged.evaluation.to_dict(),
        "labels": list(load_taxonomy(judged.rows.taxonomy).labels),
        "confusion": curves.confusion(judged.scores, judged.rows.gold).tolist(),
        "true_distribution": _distribution(judged, "true"),
        "predicted_distribution": _distribution(judged, "predicted"),
        "reliability": [
            {"confidence": round(float(c), 6), "correct": round(float(r), 6), "rows": int(n)}
            for c, r, n in zip(bins.confidence, bins.correct, bins.rows, strict=True)
        ],
        "risk_coverage": {"area": round(line.area, 6), "steps": [_six(step) for step in thinned(steps)]},
        "abstention": point and dict(zip(("below", "coverage", "risk"), point, strict=True)),
        "reasoning": judged.answers and _six(asdict(judged.answers)),
        "surest_mistakes": _worst(judged),
    }


def _six(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def _differences(named: Mapping[str, Judged]) -> list[dict[str, Any]]:
    """Accuracy of every further model less that of the first."""
    (base, first), *others = named.items()
    told = []
    for name, one in others:
        difference, interval = curves.paired_difference(one.correct, first.correct)
        told.append({"model": name, "than": base, "accuracy": round(difference, 6), "interval": interval})
    return told


def _worst(judged: Judged) -> list[dict[str, Any]]:
    labels = load_taxonomy(judged.rows.taxonomy).labels
    return [
        {
            "row": row,
            "gold": [labels[place] for place in judged.rows.gold[row].nonzero()[0]],
            "predicted": labels[int(judged.scores[row].argmax())],
            "confidence": round(float(judged.scores[row].max()), 6),
        }
        for row in curves.surest_mistakes(judged.scores, judged.correct, MISTAKES)
    ]


def _distribution(judged: Judged, kind: str) -> dict[str, int]:
    matrix = judged.rows.gold if kind == "true" else judged.predicted
    return dict(zip(load_taxonomy(judged.rows.taxonomy).labels, map(int, matrix.sum(0)), strict=True))


def _by_support(judged: Judged) -> list[str]:
    """The labels, the most frequent in the gold data first."""
    return sorted(judged.evaluation.per_label, key=lambda label: -judged.evaluation.per_label[label]["support"])
