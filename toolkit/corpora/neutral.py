"""Fewer neutral texts: filters on what most raters call neutral or nearly so, and a cap on how many stay."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import NEUTRAL
from toolkit.corpora.clean import CleaningReport
from toolkit.corpora.filters import Filter, Finding


class NeutralConfig(Config):
    """How neutral texts are thinned; as it stands, not at all.

    Attributes:
        share: a text is mostly neutral where so much of its target is neutral, and nearly neutral where it is so only
            together with the labels in ``near``.
        near: labels that say little more than neutral.
        factor: for the weight of mostly neutral texts: 1 leaves them, 0 drops them.
        near_factor: the same for nearly neutral ones.
        cap: keep at most so many texts whose only label is neutral; null keeps all.
        seed: chooses which ones stay.
    """

    share: float = Field(0.5, gt=0, le=1)
    near: tuple[str, ...] = ("approval", "realization")
    factor: float = Field(1.0, ge=0, le=1)
    near_factor: float = Field(1.0, ge=0, le=1)
    cap: int | None = Field(None, ge=0)
    seed: int = 0


def mostly_neutral(config: NeutralConfig) -> Filter:
    """Weighs down or drops texts of which ``config.share`` of the target is neutral or nearly so."""

    def judge(example: Example) -> Finding | None:
        target = example.target()
        plain = target.get(NEUTRAL, 0.0)
        if plain >= config.share:
            return Finding("mostly neutral", config.factor) if config.factor < 1 else None
        near = plain + sum(target.get(label, 0.0) for label in config.near)
        close = plain > 0 and near >= config.share
        return Finding("nearly neutral", config.near_factor) if close and config.near_factor < 1 else None

    return judge


def cap_neutral(examples: Sequence[Example], report: CleaningReport, config: NeutralConfig) -> list[Example]:
    """At most ``config.cap`` of the texts whose only label is neutral, in their order; the report counts the others.

    Which ones stay hangs on the seed and each text alone, so that other filters hardly change the choice.
    """
    plain = [e for e in examples if e.labels == (NEUTRAL,)]
    if config.cap is None or len(plain) <= config.cap:
        return list(examples)
    report.filter("neutral cap").read += len(examples)
    chosen = {id(e) for e in sorted(plain, key=lambda e: _lot(e, config.seed))[: config.cap]}
    kept = []
    for example in examples:
        if example.labels == (NEUTRAL,) and id(example) not in chosen:
            report.take_back("neutral cap", example, Finding("over the neutral cap"))
        else:
            kept.append(example)
    return kept


def _lot(example: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{example.id}|{example.text}".encode("utf-8", "surrogatepass")).digest()
