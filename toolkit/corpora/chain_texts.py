"""The texts that chains are written for: clean GoEmotions, EmpatheticDialogues situations, or the shipped samples."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from toolkit.assets import asset
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.clean import CleaningReport, build_filters, clean
from toolkit.corpora.cot import Corpus
from toolkit.corpora.empathetic import find_empathetic, read_empathetic
from toolkit.corpora.goemotions import find_split, read_goemotions, resolve_source
from toolkit.corpora.prepare import DataConfig, clean_training
from toolkit.corpora.tables import Damage

NON_COMMERCIAL = "EmpatheticDialogues is licensed CC BY-NC 4.0: not for commercial use, nor is what is made of it."


def load_texts(
    lens: Lens, config: DataConfig, source: Path | None, limit: int | None = None, cache: Path | None = None
) -> tuple[Corpus, CleaningReport]:
    """The corpus of ``lens``: train texts without near duplicates of other splits, and dev texts as they are.

    Args:
        source: the corpora folder; None takes ``EMOTION_LRM_CORPORA`` or the hub.
        limit: read only this many train rows.
        cache: keeps the embeddings, where the configuration drops texts by them.

    Returns:
        the corpus, and what cleaning did to its train split; damaged rows of all splits are counted there.

    Raises:
        DataError: where the train split is not there, or a column is missing.
    """
    folder = resolve_source(source)
    if lens is Lens.AUTHOR:
        train, report = clean_training(config, source, limit, cache)
        counted = Damage()  # cleaning has read dev before, and its damaged rows stand in the report
        has_dev = folder is None or find_split(folder, "dev")
        return Corpus("goemotions", train, list(read_goemotions("dev", source, counted)) if has_dev else None), report
    report = CleaningReport()
    splits = [s for s in ("valid", "test") if folder is None or find_empathetic(folder, s)]
    held_out = {split: list(read_empathetic(split, source, damage=report.damage)) for split in splits}
    rows = itertools.islice(read_empathetic("train", source, damage=report.damage), limit)
    filters = build_filters(config.clean, itertools.chain.from_iterable(held_out.values()))
    return Corpus("empathetic", clean(rows, filters, report)[0], held_out.get("valid")), report


def load_samples(lens: Lens, limit: int | None = None) -> Corpus:
    """The sample texts that ship, with the labels of ``lens``; they have no dev split."""
    field = "emotion" if lens is Lens.AUTHOR else "reader_emotion"
    lines = asset("data", "samples", "tiny_debug_1k.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:limit]]
    return Corpus(f"samples_{lens}", [Example(r["text"], (r[field],), lens, r["id"]) for r in rows if r.get(field)])
