"""What the template teacher knows: appraisals per label and sentence frames, read from ``prompts/teacher``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from toolkit.contract.lens import Lens
from toolkit.corpora.yaml_assets import read_yaml

_NUMBER = "#"  # in a cue's words: any number


@dataclass(frozen=True, slots=True)
class Cue:
    """Sentences that fit when the quoted words match ``pattern``, which is any of ``words``."""

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    signals: tuple[str, ...]
    stances: tuple[str, ...]

    def place(self, word: str) -> int:
        """Where ``word``, which matched, stands among the words; a number stands where the sign for numbers does."""
        form = word.lower()
        return self.words.index(form if form in self.words else _NUMBER)


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The knowledge of one label; the YAML file explains each field."""

    label: str
    noun: str
    adjective: str | None
    forms: tuple[str, ...]
    signals: tuple[str, ...]
    stances: tuple[str, ...]
    cases: tuple[str, ...]
    asks: bool
    against: dict[str, str]
    cues: tuple[Cue, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every word that names the label: its own name, noun, adjective and further forms."""
        return tuple(dict.fromkeys((self.label, self.noun, *filter(None, [self.adjective]), *self.forms)))


@dataclass(frozen=True, slots=True)
class Frames:
    """The sentence frames that all labels share, by group, and the endings that name the label."""

    who: dict[str, str]
    groups: dict[str, list[str]]
    ends: tuple[str, ...]
    contrasts: tuple[str, ...]
    plain_groups: dict[str, list[str]]
    plain_ends: tuple[str, ...]


@cache
def load_appraisals(lens: Lens) -> dict[str, Appraisal]:
    """The knowledge of every label in the native taxonomy of ``lens``."""
    return {label: _appraisal(label, row) for label, row in _read(f"{lens.native}.yaml")["labels"].items()}


@cache
def load_frames() -> Frames:
    """The sentence frames of ``prompts/teacher/frames.yaml``."""
    raw = _read("frames.yaml")
    plain = raw["plain"]
    return Frames(
        who=raw["who"],
        groups=raw["frames"],
        ends=tuple(raw["ends"]),
        contrasts=tuple(raw["contrasts"]),
        plain_groups=plain["frames"],
        plain_ends=tuple(plain["ends"]),
    )


def _read(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = read_yaml("prompts", "teacher", name)
    return raw


def _appraisal(label: str, row: dict[str, Any]) -> Appraisal:
    return Appraisal(
        label=label,
        noun=row["noun"],
        adjective=row.get("adjective"),
        forms=tuple(row.get("forms", ())),
        signals=tuple(row["signals"]),
        stances=tuple(row["stances"]),
        cases=tuple(row["cases"]),
        asks=row.get("asks", False),
        against=row.get("against", {}),
        cues=tuple(_cue(cue) for cue in row.get("cues", ())),
    )


def _cue(row: dict[str, Any]) -> Cue:
    words = tuple(row["words"].lower().split("|"))
    either = "|".join(r"\d[\d,.]*" if word == _NUMBER else re.escape(word) for word in words)
    pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
    return Cue(words, pattern, tuple(row.get("signals", ())), tuple(row.get("stances", ())))
