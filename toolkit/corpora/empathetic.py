"""EmpatheticDialogues (Rashkin et al., ACL 2019) as examples of the reader lens, from tables, the archive or the hub.

A label is the feeling that the speaker set out to convey, given before the situation was written. A listener's
utterance conveys no such feeling, so utterances are the speaker's alone: the odd turns, for the speaker begins and the
two take turns.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.goemotions import resolve_source
from toolkit.corpora.hub import hub_rows
from toolkit.corpora.tables import Damage, find_file, match_header, read_table, refuse
from toolkit.errors import DataError

Unit = Literal["situation", "utterance"]
SPLITS = ("train", "valid", "test")
ARCHIVE = "empatheticdialogues.tar.gz"
HUB_ID = "facebook/empathetic_dialogues"
_COLUMNS = {
    "situation": ("conv_id", "emotion", "situation"),
    "utterance": ("conv_id", "utterance_idx", "emotion", "role", "utterance"),
}
_ARCHIVE_COLUMNS = ("conv_id", "utterance_idx", "context", "prompt", "utterance")
_ROLES = {True: "speaker", False: "listener"}
_Row = tuple[str, Mapping[str, Any]]


def read_empathetic(
    split: str, source: Path | None = None, unit: Unit = "situation", damage: Damage | None = None
) -> Iterator[Example]:
    """The situations, or the speaker's utterances, of a split in file order.

    Args:
        split: ``train``, ``valid`` (also called ``dev``) or ``test``.
        source: a folder ``DIR`` with ``empathetic/{situations,utterances}_{split}.tsv[.gz]``, or with
            ``empatheticdialogues.tar.gz`` there or beside that folder.
        damage: counts damaged rows, which are then passed over.

    Raises:
        DataError: for a missing split, a missing column, and without ``damage`` for a damaged row.
    """
    split = "valid" if split == "dev" else split
    if split not in SPLITS:
        raise DataError(f"EmpatheticDialogues has no split {split!r}.", f"Use one of {', '.join(SPLITS)}.")
    folder = resolve_source(source)
    if folder is None:
        name = "validation" if split == "valid" else split
        yield from _from_turns(hub_rows(HUB_ID, "default", name, _ARCHIVE_COLUMNS), unit, damage)
        return
    path = find_empathetic(folder, split, unit)
    if path is None:
        raise DataError(
            f"EmpatheticDialogues has no {unit}s of {split} in {folder / 'empathetic'}.",
            f"Put {unit}s_{split}.tsv.gz or {ARCHIVE} there, or ask for another split.",
        )
    if path.name == ARCHIVE:
        yield from _from_turns(_archive_turns(path, split, damage), unit, damage)
    else:
        yield from _from_table(path, unit, damage)


def find_empathetic(source: Path, split: str, unit: Unit = "situation") -> Path | None:
    """The table of a split under ``source``, else the archive, else None."""
    split = "valid" if split == "dev" else split
    table = find_file([source / "empathetic"], f"{unit}s_{split}.tsv")
    return table or find_file([source / "empathetic", source], ARCHIVE)


def _from_table(path: Path, unit: Unit, damage: Damage | None) -> Iterator[Example]:
    for where, row in read_table(path, _COLUMNS[unit], damage):
        if unit == "situation":
            example = _example(where, row["situation"], row["emotion"], row["conv_id"], damage)
        else:
            example = None
            speaks = _is_speaker(where, row["utterance_idx"], damage)
            if speaks is not None and row["role"] != _ROLES[speaks]:
                turn = f"the {_ROLES[speaks]}'s turn {row['utterance_idx']}"
                refuse(f"{where}, has the role {row['role']!r} in {turn}.", damage)
            elif speaks:
                name = f"{row['conv_id']}/{row['utterance_idx']}"
                example = _example(where, row["utterance"], row["emotion"], name, damage)
        if example is not None:
            yield example


def _from_turns(turns: Iterable[_Row], unit: Unit, damage: Damage | None) -> Iterator[Example]:
    """Examples from rows of one turn each; a conversation's rows follow each other, and each holds its situation."""
    told: str | None = None
    for where, row in turns:
        example = None
        if unit == "situation" and row["conv_id"] != told:
            example = _example(where, _unescape(row["prompt"]), row["context"], row["conv_id"], damage)
        elif unit == "utterance" and _is_speaker(where, row["utterance_idx"], damage):
            name = f"{row['conv_id']}/{row['utterance_idx']}"
            example = _example(where, _unescape(row["utterance"]), row["context"], name, damage)
        if example is not None:
            told = row["conv_id"]
            yield example


def _is_speaker(where: str, turn: Any, damage: Damage | None) -> bool | None:
    """Whether the turn of this number is the speaker's; None, and counted as damage, where that cannot be known."""
    try:
        number = int(turn)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        refuse(f"{where}, has the utterance_idx {turn!r}, which tells no turn of the speaker or the listener.", damage)
        return None
    return number % 2 == 1


def _archive_turns(path: Path, split: str, damage: Damage | None) -> Iterator[_Row]:
    try:
        with tarfile.open(path, "r:gz") as archive:
            name = next((n for n in archive.getnames() if n.rsplit("/", 1)[-1] == f"{split}.csv"), None)
            member = archive.extractfile(name) if name else None
            if member is None:
                raise DataError(f"{path} holds no {split}.csv.", "Restore the archive.")
            with io.TextIOWrapper(member, "utf-8-sig", "surrogateescape", newline="\n") as file:
                # The file escapes commas and leaves quotes bare, so a CSV reader would join rows.
                rows = (line.rstrip("\r\n").split(",") for line in file)
                yield from match_header(f"{path}, {split}.csv", rows, _ARCHIVE_COLUMNS, damage, loose=True)
    except PermissionError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", "Check who may read it.") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        raise DataError(f"{path} is cut off or no packed archive.", "Restore the archive.") from None


def _unescape(text: str | None) -> str:
    return (text or "").replace("_comma_", ",")


def _example(where: str, text: str, emotion: str, name: str, damage: Damage | None) -> Example | None:
    if emotion not in load_taxonomy("empathetic").labels:
        refuse(f"{where}, has the emotion {emotion!r}, which is none of the 32.", damage)
    elif not text.strip():
        refuse(f"{where}, has no text.", damage)
    else:
        return Example(text, (emotion,), Lens.READER, name)
    return None
