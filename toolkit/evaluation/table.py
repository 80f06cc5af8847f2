"""An evaluation as a table on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from toolkit.evaluation.evaluate import Evaluation
from toolkit.evaluation.faithfulness import ReasoningQuality
from toolkit.evaluation.identity import TermEffect
from toolkit.evaluation.protocols import PROTOCOLS


def print_evaluation(evaluation: Evaluation, file: IO[str]) -> None:
    """The summary, then precision, recall, F1 and support of every label."""
    console = Console(file=file, highlight=False, markup=False)
    split = f", {evaluation.split} split" if evaluation.split else ""
    console.print(f"{evaluation.protocol}{split}: {evaluation.n:,} texts, {evaluation.model}, {evaluation.mode}")
    console.print(_summary(evaluation))
    if evaluation.baselines:
        console.print(_beside(evaluation))
    console.print(_labels(evaluation))
    if evaluation.cross_fitted:
        console.print("What is fitted on dev was fitted on the other four of five folds of every row.", style="dim")


def _summary(evaluation: Evaluation) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    intervals: dict[str, tuple[float, float]] = evaluation.intervals
    several = evaluation.protocol in PROTOCOLS and PROTOCOLS[evaluation.protocol].thresholded
    for name, value in (
        ("accuracy", evaluation.accuracy),
        ("macro-F1", evaluation.macro_f1),
        ("micro-F1", evaluation.micro_f1),
        ("weighted F1", evaluation.weighted_f1),
        ("all labels right", evaluation.subset_accuracy if several else None),
        ("Hamming loss", evaluation.hamming_loss if several else None),
        ("among the top five", evaluation.top5_accuracy if evaluation.protocol == "empathetic" else None),
        ("calibration error", evaluation.ece),
        ("loss", evaluation.loss),
        ("median coverage", evaluation.median_coverage),
        ("valid answers", evaluation.valid_rate),
        ("quotes in the text", evaluation.quoted_rate),
        ("answers that quote", evaluation.evidence_rate),
        *_quality(evaluation.reasoning_quality),
    ):
        if value is not None:
            low, high = intervals.get(name.replace("-", "_").lower(), (None, None))
            table.add_row(name, f"{value:.3f}", f"{low:.3f} to {high:.3f}" if low is not None else "")
    if evaluation.distinct_openings is not None:
        table.add_row("distinct openings", str(evaluation.distinct_openings), "")
    table.add_row("texts a second", f"{evaluation.texts_per_second:.1f}", "")
    return table


def _quality(quality: ReasoningQuality | None) -> list[tuple[str, float | None]]:
    if quality is None:
        return []
    told: list[tuple[str, float | None]] = [("argues for its label", quality.argued)]
    if quality.erasure is not None:
        told += [
            ("comprehensiveness", quality.erasure.comprehensiveness),
            ("... of random words", quality.erasure.random_comprehensiveness),
            ("sufficiency", quality.erasure.sufficiency),
            ("... of random words", quality.erasure.random_sufficiency),
        ]
    return told


def _beside(evaluation: Evaluation) -> Table:
    """The model and the baselines, a row each; a baseline that could not be trained has dashes."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("beside simpler models")
    for heading in ("accuracy", "macro-F1", "weighted F1", "texts/s"):
        table.add_column(heading, justify="right")
    for name, one in {evaluation.model: evaluation.to_dict(), **evaluation.baselines}.items():
        figures = [f"{one[key]:.3f}" for key in ("accuracy", "macro_f1", "weighted_f1")] if one else ["–"] * 3
        table.add_row(name, *figures, f"{one['texts_per_second']:,.0f}" if one else "–")
    return table


def print_echo_room(told: Mapping[str, Any], file: IO[str]) -> None:
    """The Echo Room's protocol: our model, its rivals and The Echo Room's own figures, and how the tasks differ."""
    console = Console(file=file, highlight=False, markup=False)
    console.print(f"{told['protocol']}: {told['trained_on']:,} texts to learn from, {told['n']:,} to judge by")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    keys = ("accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "loss")
    for heading in ("accuracy", "precision", "recall", "F1", "loss"):
        table.add_column(heading, justify="right")
    for name, one in {told["model"]: told, **told["baselines"], told["echo_room"]["model"]: told["echo_room"]}.items():
        table.add_row(name, *(f"{one[key]:.3f}" if one and key in one else "–" for key in keys))
    console.print(table)
    console.print(
        "Precision, recall and F1 are weighted by support. The Echo Room's figures are its own; the tasks differ:"
    )
    for line in (*told["echo_room"]["differences"], *told["missing"]):
        console.print(f"- {line}")
    console.print(f"{100 * told['repeated']:.1f} % of the texts judged by stand among those learned from as well.")


def print_term_effects(effects: Sequence[TermEffect], model: str, file: IO[str]) -> None:
    """What naming each identity does to a model's readings, a line a term."""
    console = Console(file=file, highlight=False, markup=False)
    console.print(f"identity terms: {len(effects)} terms in the same sentences, {model}")
    table = Table(box=SIMPLE_HEAD)
    for heading in ("group", "term"):
        table.add_column(heading, no_wrap=True)
    for heading in ("shift", "other label", "negative", "95 %"):
        table.add_column(heading, justify="right")
    for effect in effects:
        change, interval = "", ""
        if effect.negative is not None and effect.interval is not None:
            change, interval = f"{effect.negative:+.3f}", "{:+.3f} to {:+.3f}".format(*effect.interval)
        table.add_row(effect.group, effect.term, f"{effect.shift:.3f}", f"{effect.flips:.2f}", change, interval)
    console.print(table)


def _labels(evaluation: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("label")
    for heading in ("precision", "recall", "F1", "support"):
        table.add_column(heading, justify="right")
    for label, scores in evaluation.per_label.items():
        figures = (f"{scores[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(label, *figures, f"{scores['support']:,.0f}")
    return table
