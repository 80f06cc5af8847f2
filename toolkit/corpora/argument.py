"""What a chain argues for once its quotations and the names of all labels are emptied: only the argument is left.

The judge is the word model of :mod:`toolkit.corpora.lexicon`, fitted on the reasonings that were written by hand for
the samples that ship and on what ``prompts/teacher`` says of every label in appraisal terms. A model that teaches has
seen neither. The template teacher writes from the latter, so that of its chains the judge is not independent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

from toolkit.assets import asset
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.gate import Judgement, base_rates, outside_quotes
from toolkit.corpora.knowledge import load_appraisals
from toolkit.corpora.lexicon import Lexicon, fit

_WRITTEN = {  # by hand; the golden texts evaluate, so nothing learns from them
    Lens.AUTHOR: ("emotion", "reasoning", ("tiny_debug_1k", "situations_2k", "situations_reasoned")),
    Lens.READER: ("reader_emotion", "reader_reasoning", ("tiny_debug_1k", "situations_2k")),
}


def judge_argument(reasoning: str, lens: Lens) -> Judgement:
    """What the judge of ``lens`` thinks that ``reasoning`` argues for, whatever it quotes and names."""
    return _judged(argument(reasoning, lens), lens)


def argument(reasoning: str, lens: Lens) -> str:
    """The reasoning without what it quotes and without every word that names a label of ``lens``."""
    return _names(lens).sub("", outside_quotes(reasoning))


@cache  # a template's thousands of chains share their wordings
def _judged(words: str, lens: Lens) -> Judgement:
    lexicon, rates = _judge(lens)
    return Judgement(lexicon.probability(words), rates)


@cache
def _judge(lens: Lens) -> tuple[Lexicon, dict[str, float]]:
    labels = load_taxonomy(lens.native).labels
    known = [*_written(lens), *_appraised(lens)]
    return fit(known, labels), base_rates(known, labels)


@cache
def _names(lens: Lens) -> re.Pattern[str]:
    names = {name for appraisal in load_appraisals(lens).values() for name in appraisal.names}
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)


def _written(lens: Lens) -> Iterator[Example]:
    """The argument of every reasoning that was written by hand, as a text with the label that it argues for."""
    label, reasoning, files = _WRITTEN[lens]
    for name in files:
        for line in asset("data", "samples", f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Example(argument(row[reasoning], lens), (row[label],), lens)


def _appraised(lens: Lens) -> Iterator[Example]:
    """Every sentence of the teacher's knowledge, as a text with its label."""
    for label, known in load_appraisals(lens).items():
        parts = [*known.signals, *known.stances, *known.cases]
        for part in [*parts, *(part for cue in known.cues for part in (*cue.signals, *cue.stances))]:
            yield Example(part, (label,), lens)
