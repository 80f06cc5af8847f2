"""From raw splits to clean training examples, by one configuration."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.files import replacing
from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.corpora.clean import CleanConfig, CleaningReport, build_filters, clean
from toolkit.corpora.cot import CotConfig
from toolkit.corpora.goemotions import find_split, read_goemotions, resolve_source


class DataConfig(Config):
    """One file for the corpora commands: how to clean, and how to choose and judge chains."""

    clean: CleanConfig = CleanConfig()
    cot: CotConfig = CotConfig()


def clean_training(
    config: DataConfig, source: Path | None, limit: int | None = None
) -> tuple[list[Example], CleaningReport]:
    """The cleaned train split of GoEmotions, without near duplicates of whichever other splits are there.

    Args:
        source: the corpora folder; None takes ``EMOTION_LRM_CORPORA`` or the hub.
        limit: read only this many rows.

    Raises:
        DataError: where the train split is missing or damaged.
    """
    rows = itertools.islice(read_goemotions("train", source), limit)
    return clean(rows, build_filters(config.clean, _held_out(source)))


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _held_out(source: Path | None) -> list[Example]:
    folder = resolve_source(source)
    splits = [s for s in ("dev", "test") if folder is None or find_split(folder, s) is not None]
    return [example for split in splits for example in read_goemotions(split, source)]
