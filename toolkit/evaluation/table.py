"""An evaluation as tables on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from toolkit.evaluation import document
from toolkit.evaluation.document import Block, Heading, Points, Words, between
from toolkit.evaluation.evaluate import Evaluation, overlap_marks
from toolkit.evaluation.faithfulness import ReasoningQuality
from toolkit.evaluation.protocols import PROTOCOLS


def print_evaluation(evaluation: Evaluation, file: IO[str]) -> None:
    """The summary, then precision, recall, F1 and support of every label."""
    console = Console(file=file, highlight=False, markup=False)
    split = f", {evaluation.split} split" if evaluation.split else ""
    console.print(f"{evaluation.protocol}{split}: {evaluation.n:,} texts, {evaluation.model}, {evaluation.mode}")
    for mark in overlap_marks(evaluation):
        console.print(mark)
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
    several = evaluation.protocol in PROTOCOLS and PROTOCOLS[evaluation.protocol].thresholded
    for name, key in (
        ("accuracy", "accuracy"),
        ("macro-F1", "macro_f1"),
        ("micro-F1", "micro_f1"),
        ("weighted F1", "weighted_f1"),
        *((("all labels right", "subset_accuracy"), ("Hamming loss", "hamming_loss")) if several else ()),
        *((("among the top five", "top5_accuracy"),) if evaluation.protocol == "empathetic" else ()),
        ("wrongly neutral", "false_neutral_rate"),
        ("calibration error", "ece"),
        ("loss", "loss"),
        ("median coverage", "median_coverage"),
        ("valid answers", "valid_rate"),
        ("quotes in the text", "quoted_rate"),
        ("answers that quote", "evidence_rate"),
    ):
        value, interval = getattr(evaluation, key), evaluation.intervals.get(key)
        if value is not None:
            table.add_row(name, f"{value:.3f}", between(interval) if interval else "")
    for name, value in _quality(evaluation.reasoning_quality):
        if value is not None:
            table.add_row(name, f"{value:.3f}", "")
    if evaluation.distinct_openings is not None:
        table.add_row("distinct openings", str(evaluation.distinct_openings), "")
    table.add_row("texts a second", f"{evaluation.texts_per_second:.1f}", "")
    return table


def _quality(quality: ReasoningQuality | None) -> list[tuple[str, float | None]]:
    if quality is None:
        return []
    told: list[tuple[str, float | None]] = [
        ("argues for its label", quality.argued),
        ("... without its name", quality.argued_unnamed),
    ]
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


def _labels(evaluation: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("label")
    for heading in ("precision", "recall", "F1", "support"):
        table.add_column(heading, justify="right")
    for label, scores in evaluation.per_label.items():
        figures = (f"{scores[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(label, *figures, f"{scores['support']:,.0f}")
    return table


def print_blocks(blocks: Iterable[Block], file: IO[str]) -> None:
    """The words, lists and tables of a report."""
    console = Console(file=file, highlight=False, markup=False)
    for block in blocks:
        match block:
            case Heading(words):
                console.print(words, style="bold")
            case Words(words):
                console.print(words)
            case Points(lines):
                for line in lines:
                    console.print(f"- {line}")
            case document.Table():
                console.print(_drawn(block))


def _drawn(block: document.Table) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading, right in zip(block.header, document.figure_columns(block), strict=True):
        table.add_column(heading, justify="right" if right else "left")
    for row in block.rows:
        table.add_row(*(cell if isinstance(cell, str) else document.figure(cell) for cell in row))
    return table
