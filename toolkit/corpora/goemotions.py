"""GoEmotions (Demszky et al., ACL 2020) as examples: the official splits from a folder or from the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.hub import hub_rows
from toolkit.corpora.tables import Damage, broken_text, find_file, read_lines, refuse
from toolkit.errors import DataError

SPLITS = ("train", "dev", "test")
HUB_ID = "google-research-datasets/go_emotions"


def resolve_source(source: Path | None) -> Path | None:
    """The folder with corpora: the argument, else ``EMOTION_LRM_CORPORA``, else None, which means the hub."""
    if source is None and os.environ.get("EMOTION_LRM_CORPORA"):
        source = Path(os.environ["EMOTION_LRM_CORPORA"])
    if source is not None and not source.is_dir():
        raise DataError(f"The corpora folder {source} does not exist.", "Check --source or EMOTION_LRM_CORPORA.")
    return source


def read_goemotions(split: str, source: Path | None = None, damage: Damage | None = None) -> Iterator[Example]:
    """The rows of an official split, in file order.

    Args:
        split: ``train``, ``dev`` or ``test``.
        source: a folder ``DIR`` with ``goemotions/{split}.tsv[.gz]``: text, comma-separated label ids, comment id.
        damage: counts damaged rows, which are then passed over.

    Raises:
        DataError: for a missing split, and without ``damage`` for a damaged row (named by file and line).
    """
    if split not in SPLITS:
        raise DataError(f"GoEmotions has no split {split!r}.", f"Use one of {', '.join(SPLITS)}.")
    folder = resolve_source(source)
    yield from _read_hub(split, damage) if folder is None else _read_tsv(_require_split(folder, split), damage)


def find_split(source: Path, split: str) -> Path | None:
    """The file of a split under the corpora folder ``source``, or None where it is not there."""
    return find_file([source / "goemotions"], f"{split}.tsv")


def _require_split(source: Path, split: str) -> Path:
    path = find_split(source, split)
    if path is None:
        raise DataError(
            f"GoEmotions has no {split} split in {source / 'goemotions'}.",
            f"Put {split}.tsv or {split}.tsv.gz there, or ask for another.",
        )
    return path


def _read_tsv(path: Path, damage: Damage | None) -> Iterator[Example]:
    for where, fields in read_lines(path):
        try:
            text, ids, comment = fields
            example = _example(text, [int(i) for i in ids.split(",")], comment)
        except (ValueError, IndexError):
            refuse(f"{where}, is no row of text, label ids and comment id.", damage)
        else:
            yield example


def _read_hub(split: str, damage: Damage | None) -> Iterator[Example]:
    name = "validation" if split == "dev" else split
    for where, row in hub_rows(HUB_ID, "simplified", name, ("text", "labels", "id")):
        try:
            example = _example(row["text"], row["labels"], row["id"])
        except (ValueError, IndexError, TypeError, AttributeError):
            refuse(f"{where}, is no row of text, label ids and comment id.", damage)
        else:
            yield example


def _example(text: str, ids: list[int], comment: str) -> Example:
    names = load_taxonomy("goemotions").labels
    if min(ids) < 0:
        raise IndexError(ids)
    if broken_text(text):
        raise ValueError(text)
    return Example(text=text, labels=tuple(names[i] for i in sorted(set(ids))), lens=Lens.AUTHOR, id=comment)
