"""What a model has learned from, told with the model, so that nothing of it judges the model later."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from toolkit.assets import asset
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.jsonl import read_examples
from toolkit.errors import DataError
from toolkit.training.config import DataSettings, LensData
from toolkit.training.data import load_samples

_CORPORA = tuple(f"{lens.native}/" for lens in Lens)
SPLITS = ("train", "dev", "test")
MOST_TEXTS = 75_000  # so that a GGUF can tell them in one string of less than a megabyte


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned from.

    Attributes:
        splits: of the corpora, such as ``goemotions train``.
        texts: the :func:`digest` of every text that came from a file.
    """

    splits: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def __or__(self, other: Learned) -> Learned:
        return Learned(self.splits | other.splits, self.texts | other.texts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it. Of too many texts those of the lowest digests are told, a fair sample of them."""
        return {"splits": sorted(self.splits), "texts": " ".join(sorted(self.texts)[:MOST_TEXTS])}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Learned:
        """What :meth:`to_dict` told."""
        return cls(frozenset(told.get("splits", ())), frozenset(told.get("texts", "").split()))


def digest(text: str) -> str:
    """Twelve digits for a text, whatever its case and white space."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def learned_from(data: DataSettings, examples: Iterable[Example] = ()) -> Learned:
    """What ``data`` names: the split of every lens, and the texts of files.

    Rows of a file may be those of a corpus, cleaned, so they count as both. Chains beside a corpus are of its texts.

    Args:
        examples: those of The Echo Room's protocol come from several splits, which begin their ids.
    """
    splits = {f"{lens.native} {_plain(data.split)}" for lens in data.lenses()}
    for lens, wanted in data.lenses().items():
        if wanted.chains is not None and wanted.chains.stem.endswith("_val"):  # so `data cot` calls those of dev
            splits.add(f"{lens.native} dev")
    for corpus, part in {tuple(example.id.split("/")[:2]) for example in examples if example.id.startswith(_CORPORA)}:
        splits |= {f"{corpus} {split}" for split in ((part,) if part in SPLITS else SPLITS)}  # a rating may be of any
    return Learned(frozenset(splits), frozenset(digest(example.text) for example in _of_files(data)))


def read_learned(folder: Path) -> Learned:
    """What the ``training.json`` in an adapter's folder tells; nothing where there is none.

    Raises:
        DataError: where it is damaged.
    """
    path = folder / "training.json"
    if not path.is_file():
        return Learned()
    try:
        return _told_by(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError, OSError):
        raise DataError(f"{path} is damaged.", "Remove it, or train again.") from None


def _told_by(training: Mapping[str, Any]) -> Learned:
    """What is told, of an average by its parts; else what the configuration says, and the sample files that ship.

    Under ``before`` stand the runs that it went on from, told in the same way.
    """
    if "learned" in training:
        return Learned.from_dict(training["learned"])
    if "config" not in training:
        return reduce(or_, map(_told_by, training.get("average", [])), Learned())
    data = DataSettings.model_validate(training["config"]["data"])
    shipped = [one.model_copy(update={"file": asset("data", "samples") / one.file.name}) for one in data.samples]
    known: dict[str, Any] = {str(lens): LensData() for lens in data.lenses()}
    own = learned_from(data.model_copy(update=known | {"samples": [one for one in shipped if one.file.is_file()]}))
    return reduce(or_, map(_told_by, training.get("before", [])), own)


def _of_files(data: DataSettings) -> Iterator[Example]:
    for lens in data.lenses().values():
        if lens.rows is not None:
            yield from itertools.chain(read_examples(lens.rows), read_examples(lens.chains) if lens.chains else ())
    for samples in data.samples:
        yield from load_samples(samples.model_copy(update={"votes": None}))  # which change no text


def _plain(split: str) -> str:
    return "dev" if split == "valid" else split
