"""Texts without some of their words, from which a model learns to rest a label on the words that its reasoning quotes.

Reasoning is faithful where the label falls without the quoted words and stands without others (ERASER, DeYoung et al.,
ACL 2020). A model can be taught that along with its labels (UNIREX, Chan et al., ICML 2022).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from toolkit.contract.answer import find_evidence
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import NEUTRAL
from toolkit.corpora.spans import kept_words, quoted_words

QUOTED_SHARE = 1 / 3  # of the copies lack the quoted words, the others lack words around them
MOST_STRUCK = 0.7


def erased(examples: Iterable[Example], seed: int) -> list[Example]:
    """A copy, for its label alone, of every example whose reasoning quotes some of its words.

    Most copies lack a random share of the other words and keep their target. The rest lack the quoted words; through
    the author's lens half of their label goes to neutral, which is what raters call a text that gives no feeling away.
    The reader's lens has no such label, so there no copy lacks the quoted words.
    """
    chance = random.Random(seed)
    return [copy for example in examples if (copy := _copy(example, chance)) is not None]


def _copy(example: Example, chance: random.Random) -> Example | None:
    quoted = quoted_words(example.text, find_evidence(example.text, example.reasoning or ""))
    if not quoted.any():
        return None
    label = example.labels[0]
    if chance.random() < QUOTED_SHARE and example.lens is Lens.AUTHOR and label != NEUTRAL:
        return replace(example, text=kept_words(example.text, ~quoted), reasoning=None, soft={label: 0.5, NEUTRAL: 0.5})
    share = chance.uniform(0.1, MOST_STRUCK)
    kept = quoted | np.array([chance.random() >= share for _ in quoted])
    return replace(example, text=kept_words(example.text, kept), reasoning=None)
