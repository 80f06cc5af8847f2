"""GoEmotions (Demszky et al., ACL 2020) as examples: the official splits from a folder or from the hub."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
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


def read_goemotions(split: str, source: Path | None = None) -> Iterator[Example]:
    """The rows of an official split, in file order.

    Args:
        split: ``train``, ``dev`` or ``test``.
        source: a folder ``DIR`` with ``goemotions/{split}.tsv[.gz]``: text, comma-separated label ids, comment id.

    Raises:
        DataError: for a missing split or a damaged row (named by file and line).
    """
    if split not in SPLITS:
        raise DataError(f"GoEmotions has no split {split!r}.", f"Use one of {', '.join(SPLITS)}.")
    folder = resolve_source(source)
    yield from _read_hub(split) if folder is None else _read_tsv(_require_split(folder, split))


def find_split(source: Path, split: str) -> Path | None:
    """The file of a split under the corpora folder ``source``, or None where it is not there."""
    paths = [source / "goemotions" / name for name in (f"{split}.tsv", f"{split}.tsv.gz")]
    return next((path for path in paths if path.is_file()), None)


def _require_split(source: Path, split: str) -> Path:
    path = find_split(source, split)
    if path is None:
        raise DataError(
            f"GoEmotions has no {split} split in {source / 'goemotions'}.",
            f"Put {split}.tsv or {split}.tsv.gz there, or ask for another.",
        )
    return path


def _read_tsv(path: Path) -> Iterator[Example]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\r\n").split("\t")
            try:
                text, ids, comment = fields
                yield _example(text, [int(i) for i in ids.split(",")], comment)
            except (ValueError, IndexError):
                raise DataError(
                    f"{path}, line {number}, is no row of text, label ids and comment id.", "Restore the file."
                ) from None


def _read_hub(split: str) -> Iterator[Example]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            "No corpora folder was given, and the hub needs the package datasets.",
            'Set EMOTION_LRM_CORPORA or --source, or install ".[data]".',
        ) from None
    name = "validation" if split == "dev" else split
    try:
        rows = load_dataset(HUB_ID, "simplified", split=name, revision="refs/convert/parquet")
    except Exception as error:
        raise DataError(
            f"The hub did not give {HUB_ID}: {error}.", "Check the network, or point --source at a local folder."
        ) from error
    for row in rows:
        yield _example(row["text"], row["labels"], row["id"])


def _example(text: str, ids: list[int], comment: str) -> Example:
    names = load_taxonomy("goemotions").labels
    if min(ids) < 0:
        raise IndexError(ids)
    return Example(text=text, labels=tuple(names[i] for i in sorted(set(ids))), lens=Lens.AUTHOR, id=comment)
