"""Clean rows parted in two for training and for watching it: stratified by label, and no text on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example


class SplitConfig(Config):
    """How the clean rows are parted.

    Attributes:
        val_share: the share of each label's texts that goes to validation.
        seed: chooses which ones.
    """

    val_share: float = Field(0.1, ge=0, lt=1)
    seed: int = 0


def split(examples: Sequence[Example], config: SplitConfig) -> tuple[list[Example], list[Example]]:
    """The rows for training and those for validation, each in their order.

    A text belongs to the stratum of its rarest label. Which texts go hangs on the seed and each text alone, so that a
    row more or less hardly changes the choice; copies of a text go together.
    """
    counts = Counter(label for example in examples for label in example.labels)
    strata: dict[str, dict[str, None]] = defaultdict(dict)
    placed: set[str] = set()
    for example in examples:
        text = _normal(example.text)
        if text not in placed:
            placed.add(text)
            strata[min(example.labels, key=lambda label: (counts[label], label))][text] = None
    chosen: set[str] = set()
    for texts in strata.values():
        chosen.update(sorted(texts, key=lambda text: _lot(text, config.seed))[: round(config.val_share * len(texts))])
    train = [example for example in examples if _normal(example.text) not in chosen]
    return train, [example for example in examples if _normal(example.text) in chosen]


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _lot(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{text}".encode("utf-8", "surrogatepass")).digest()
