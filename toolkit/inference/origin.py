"""What an adapter was made of, and what its base and its corpora leave of the freedom to use it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.adapter import BASE_FILE
from toolkit.base import base_of
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError

CORPORA = {Lens.AUTHOR: "GoEmotions", Lens.READER: "EmpatheticDialogues"}
PROJECT_LICENCE, NON_COMMERCIAL, GEMMA = "Apache-2.0", "CC-BY-NC-4.0", "Gemma Terms of Use"


@dataclass(frozen=True, slots=True)
class Origin:
    """What an adapter's folder says of how it was made; empty where it does not say.

    Attributes:
        base: the public name of the model that it changes.
        lenses: those that it has learned.
        datasets: the corpora that it has learned from.
        licence: what base and datasets leave of the freedom to use it.
    """

    base: str
    lenses: tuple[Lens, ...]
    datasets: tuple[str, ...]
    licence: str


def remark_on(licence: str, datasets: Collection[str]) -> str:
    """A sentence for a licence that forbids commercial use or binds to the base's terms; empty for others."""
    if "NC" in licence.upper().split("-"):
        return f"This model learned from {' and '.join(datasets)}; its licence, {licence}, forbids commercial use."
    if licence == GEMMA:
        return "This model is built on Gemma; the Gemma Terms of Use hold for it (ai.google.dev/gemma/terms)."
    return ""


def read_origin(adapter: Path) -> Origin:
    """What an adapter is made of, by its ``base.json`` and ``training.json``, without the latter its calibration.

    A lens that it learned from rows of a file counts as learned from its corpus, for they may be the corpus cleaned.

    Raises:
        ModelError: where one of the files is damaged.
    """
    try:
        base = str(_told(adapter / BASE_FILE).get("model_id", ""))
        runs = list(_runs(_told(adapter / "training.json")))
        from_corpora = {lens for run in runs for lens in Lens if _learned_from_corpus(run, lens)}
        samples = [one for run in runs for one in run.get("config", {}).get("data", {}).get("samples", [])]
        lenses = from_corpora | {Lens(name) for one in samples for name in one["lenses"]}
        if not lenses:
            calibrated = _told(adapter / "calibration.json").get("lenses", {})
            lenses = from_corpora = {lens for lens in Lens if lens in calibrated}
    except (ValueError, TypeError, AttributeError, KeyError, OSError):
        raise ModelError(f"What {adapter} says of itself is damaged.", "Copy the adapter again, or train it.") from None
    whole = all("config" in run for run in runs)
    found = [tuple(lens for lens in Lens if lens in some) for some in (lenses, from_corpora)]
    return Origin(base, found[0], tuple(map(CORPORA.__getitem__, found[1])), _licence(base, from_corpora, whole))


def _told(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told


def _runs(training: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The training runs behind an adapter; an average has several."""
    if "average" not in training:
        yield training
    for part in training.get("average", []):
        yield from _runs(part)


def _learned_from_corpus(run: Mapping[str, Any], lens: Lens) -> bool:
    """Also in a run that this one went on from, of which only the splits are told."""
    splits = run.get("learned", {}).get("splits", [])
    named = run.get("config", {}).get("data", {}).get(str(lens)) is not None
    return named or any(split.startswith(f"{lens.native} ") for split in splits)


def _licence(base: str, corpora: Collection[Lens], whole: bool) -> str:
    """EmpatheticDialogues is not for commercial use; GoEmotions and our own texts ask for no more than the base does.

    Args:
        whole: whether all is known that was learned from.
    """
    known = base_of(base)
    of_base = known.licence if known else ""
    if Lens.READER not in corpora:
        return of_base if whole else ""
    return NON_COMMERCIAL if of_base in ("", PROJECT_LICENCE) else f"{NON_COMMERCIAL} and {of_base}"
