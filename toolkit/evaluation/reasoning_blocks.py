"""The part of a report that says how good the reasoning is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from toolkit.evaluation.document import Block, Cell, Heading, Table, Words, between
from toolkit.evaluation.evaluate import Judged
from toolkit.evaluation.faithfulness import ReasoningQuality

_WRITTEN = {
    "valid": "answers that keep the contract",
    "quoted": "quotes that stand in the text exactly so",
    "with_quote": "answers that quote",
    "openings": "distinct openings (first five words)",
    "copied": "answers that repeat an earlier one word for word",
    "repeating": "answers in which three words in a row come twice",
    "distinct_2": "distinct-2: different pairs of words among all",
    "words": "words an answer",
}

_MEASURED = {
    "argued": "argues for the label given, by another model's judgement",
    "argued_interval": "... 95 % interval",
    "judge_accuracy": "that judge's own accuracy on reasonings it has not seen",
    "argued_unnamed": "argues for the label given, by a judge that reads no names of labels",
    "argued_unnamed_interval": "... 95 % interval",
    "unnamed_judge_accuracy": "that judge's own accuracy on reasonings it has not seen",
    "erasure.texts": "texts of at least eight words whose words are quoted",
    "erasure.comprehensiveness": "comprehensiveness of the quoted words",
    "erasure.random_comprehensiveness": "... of random words",
    "erasure.comprehensiveness_gain": "... 95 % interval of the difference",
    "erasure.sufficiency": "sufficiency of the quoted words",
    "erasure.random_sufficiency": "... of random words",
    "erasure.sufficiency_gain": "... 95 % interval of the difference",
}


def reasoning_blocks(named: Mapping[str, Judged]) -> Iterator[Block]:
    """How the answers are written, and whether they are true; nothing where no model explained."""
    explained = {name: one for name, one in named.items() if one.answers is not None}
    if not explained:
        return
    yield Heading("Reasoning quality")
    columns = ("", *(explained if len(named) > 1 else ("",)))
    written = [asdict(one.answers) for one in explained.values() if one.answers is not None]
    yield Table(columns, [(told, *(found[key] for found in written)) for key, told in _WRITTEN.items()])
    measured = [one.evaluation.reasoning_quality for one in explained.values()]
    yield Table(columns, [(told, *(_cell(one, key) for one in measured)) for key, told in _MEASURED.items()])
    yield Words(
        "Shares are between 0 and 1. The first table says whether the reasoning keeps its form, stays with the text "
        "and varies. The second is of the first answers, at most 500: whether another model, which sees the argument "
        "alone, finds the label that it argues for, and what the label loses in probability when the quoted words are "
        "taken out of the text (comprehensiveness, higher is better) or stand alone (sufficiency, lower is better), "
        "against as many words at random places. Neither says whether the label is right."
    )


def _cell(quality: ReasoningQuality | None, key: str) -> Cell:
    """A figure by its dotted name, or the two ends of its interval."""
    value: Any = quality
    for part in key.split("."):
        value = None if value is None else getattr(value, part)
    return between(value) if isinstance(value, tuple) else value
