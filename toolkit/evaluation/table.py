"""An evaluation as a table on a terminal or in a pipe."""

from __future__ import annotations

from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from toolkit.evaluation.evaluate import Evaluation
from toolkit.evaluation.protocols import PROTOCOLS


def print_evaluation(evaluation: Evaluation, file: IO[str]) -> None:
    """The summary, then precision, recall, F1 and support of every label."""
    console = Console(file=file, highlight=False, markup=False)
    split = f", {evaluation.split} split" if evaluation.split else ""
    console.print(f"{evaluation.protocol}{split}: {evaluation.n:,} texts, {evaluation.model}, {evaluation.mode}")
    console.print(_summary(evaluation))
    console.print(_labels(evaluation))
    if evaluation.cross_fitted:
        console.print("What is fitted on dev was fitted on the other four of five folds of every row.", style="dim")


def _summary(evaluation: Evaluation) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
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
    ):
        if value is not None:
            low, high = evaluation.intervals.get(name.replace("-", "_").lower(), (None, None))
            table.add_row(name, f"{value:.3f}", f"{low:.3f} to {high:.3f}" if low is not None else "")
    if evaluation.distinct_openings is not None:
        table.add_row("distinct openings", str(evaluation.distinct_openings), "")
    table.add_row("texts a second", f"{evaluation.texts_per_second:.1f}", "")
    return table


def _labels(evaluation: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("label")
    for heading in ("precision", "recall", "F1", "support"):
        table.add_column(heading, justify="right")
    for label, scores in evaluation.per_label.items():
        figures = (f"{scores[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(label, *figures, f"{scores['support']:,.0f}")
    return table
