"""What was said in a chat and how it was read: a timeline of its mood, and files to keep it in."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from convert.files import explained, replacing
from toolkit.apps.escape import json_line, visible
from toolkit.apps.panel import percent
from toolkit.contract.analysis import Analysis
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError, UsageError

_VERSION = 1
_STEPS = "▁▂▃▄▅▆▇█"
_ASCII = str.maketrans(_STEPS + "→…", "_.-~=+*#>.")
_SIGN = {"positive": 1.0, "negative": -1.0}


@dataclass(slots=True)
class Conversation:
    """The readings of a chat in their order. ``written`` are the files that this chat made and may replace."""

    turns: list[Analysis] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)

    def save(self, path: Path) -> None:
        """Write everything to a JSON file that :meth:`load` reads.

        Raises:
            UsageError: where a file is there that this chat did not write.
            FileError: no space, no permission.
        """
        told = {"version": _VERSION, "turns": [turn.to_dict() for turn in self.turns]}
        self._write(path, [json_line(told)])

    def load(self, path: Path) -> None:
        """Put what :meth:`save` wrote in the place of what was said so far.

        Raises:
            DataError: for a file of another kind.
            FileError: missing, no permission.
        """
        with explained(path):
            raw = path.read_bytes()
        try:
            found = json.loads(raw)
            turns = TypeAdapter(list[Analysis]).validate_python(found["turns"])
            for turn in turns:
                _check(turn)
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError, UsageError):
            raise DataError(f"{path} is no saved conversation.", "Give a file that /save wrote.") from None
        self.turns = turns

    def export(self, path: Path) -> None:
        """Write the readings for people (``.md``) or programs (``.jsonl``). Errors as for :meth:`save`."""
        if path.suffix.lower() == ".jsonl":
            self._write(path, (json_line(turn.to_dict()) for turn in self.turns))
        elif path.suffix.lower() == ".md":
            self._write(path, (_markdown(number, turn).encode() for number, turn in enumerate(self.turns, 1)))
        else:
            raise UsageError(f"{path.name} does not say its form.", "End it with .md or .jsonl.")

    def history(self) -> list[str]:
        """One line a message: its number, emotion and beginning."""
        return [
            f"{number:>3}  {turn.emotion} {percent(turn.confidence)}  {excerpt(turn.text)}"
            for number, turn in enumerate(self.turns, 1)
        ]

    def timeline(self, width: int, ascii_only: bool = False) -> str:
        """The mood from first to last as steps, low for negative and high for positive, and the last names."""
        names = " → ".join(turn.emotion for turn in self.turns[-3:])
        room = max(5, width - len(names) - 8)
        shown = f"mood  {''.join(step(mood(turn)) for turn in self.turns[-room:])}  {names}"
        return shown.translate(_ASCII) if ascii_only else shown

    def _write(self, path: Path, pieces: Iterable[bytes]) -> None:
        if path.exists() and path.resolve() not in self.written:
            raise UsageError(f"{path} exists already.", "Choose another name.")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.writelines(pieces)
        self.written.add(path.resolve())


def mood(turn: Analysis) -> float:
    """-1 (surely negative) to 1 (surely positive); 0 where the emotion is neither, or the model abstained."""
    if turn.abstained:
        return 0.0
    native = load_taxonomy(turn.lens.native)
    sentiment = native.entries[native.index(turn.fine_emotion)].maps.get("sentiment", "")
    return _SIGN.get(sentiment, 0.0) * turn.confidence


def step(value: float) -> str:
    """One of eight steps for a mood of -1 to 1."""
    return _STEPS[min(7, int((value + 1) * 4))]


def excerpt(text: str, length: int = 40) -> str:
    """The beginning of a text on one line."""
    line = visible(" ".join(text[: 4 * length].split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def _check(turn: Analysis) -> None:
    """Refuse a reading that could not be shown."""
    load_taxonomy(turn.lens.native).index(turn.fine_emotion)
    if tuple(turn.scores) != load_taxonomy(turn.taxonomy).labels or not {turn.emotion, *turn.emotions} <= {
        *turn.scores
    }:
        raise ValueError("the labels do not fit")
    if not all(
        isinstance(score, (int, float)) and 0 <= score <= 1 for score in (*turn.scores.values(), turn.confidence)
    ):
        raise ValueError("a score is no probability")


def _markdown(number: int, turn: Analysis) -> str:
    quoted = "\n".join(f"> {html.escape(line, quote=False)}" for line in visible(turn.text).split("\n"))
    reasoning = f"\n{html.escape(visible(turn.reasoning), quote=False)}\n" if turn.reasoning else ""
    return f"## {number}. {turn.emotion} ({percent(turn.confidence)})\n\n{quoted}\n{reasoning}\n"
