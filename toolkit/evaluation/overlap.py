"""Does a model meet rows again that it has learned from? Then its figures say what it remembers, not what it knows.

A split of a corpus counts as learned as a whole, by its name: that ``Thanks!`` stands in both the official train split
and dev is so in life, and makes dev no part of train. Texts of a file count one by one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.assets import asset
from toolkit.errors import UsageError
from toolkit.evaluation.protocols import Rows
from toolkit.inference.store import load_shipped
from toolkit.training.encoder_model import is_encoder, read_facts
from toolkit.training.learned import Learned, digest, read_learned

if TYPE_CHECKING:
    from collections.abc import Mapping


def learned_by(model: Any, path: str | None = None) -> Learned:
    """What a model says that it has learned from; nothing where it says nothing.

    Args:
        model: a loaded model; those that ship are known by their adapters, others tell it in their GGUF.
        path: where it was loaded from, if that may be an encoder.
    """
    if path is not None and is_encoder(path):
        facts = read_facts(Path(path))
        return Learned.from_dict(facts.learned) if facts.learned else Learned(frozenset({facts.trained_on}))
    engine = getattr(model, "engine", None)
    found = Learned()
    for part in (getattr(engine, "model", None), getattr(engine, "adapter", None)):
        found |= _told_in(part.header.metadata) if part is not None else Learned()
    return found


def _told_in(metadata: Mapping[str, Any]) -> Learned:
    if "emotion_lrm.learned" in metadata:
        return Learned.from_dict(json.loads(metadata["emotion_lrm.learned"]))
    adapter = metadata.get("emotion_lrm.adapter")
    if adapter in {shipped.adapter for shipped in load_shipped().models.values()}:
        return read_learned(asset("models", "adapters", str(adapter)))
    return Learned()


def overlap(rows: Rows, learned: Learned) -> int:
    """How many of the rows are of a split, or of a file's texts, that were learned from."""
    if rows.split is not None:
        return len(rows.texts) if f"{rows.lens.native} {rows.split}" in learned.splits else 0
    return sum(digest(text) in learned.texts for text in rows.texts)


def require_apart(name: str, rows: Rows, learned: Learned, allowed: bool) -> int:
    """The :func:`overlap`, which has to be 0 unless it is ``allowed``.

    Raises:
        UsageError: with how many rows ``name`` would meet again.
    """
    met = overlap(rows, learned)
    if met and not allowed:
        raise UsageError(
            f"{name} has learned from {met:,} of the {len(rows.texts):,} rows that would judge it.",
            "Choose other rows, or go on with --allow-overlap, which marks the figures.",
        )
    return met
