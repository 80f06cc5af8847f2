"""What was said in a chat and how it was read, through one lens or both: its mood, and files to keep it in."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.text import Text

from convert.files import explained, replacing
from toolkit.apps.escape import json_line, visible
from toolkit.apps.panel import percent, tone
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError, UsageError
from toolkit.inference.divergence import check_shared, compare

_VERSION = 1
_STEPS = "▁▂▃▄▅▆▇█"
_ASCII = str.maketrans(_STEPS + "→…", "_.-~=+*#>.")
_SIGN = {"positive": 1.0, "negative": -1.0}

Turn = Analysis | Comparison
_LIST, _READING = TypeAdapter(list[dict[str, Any]]), TypeAdapter(Analysis)


@dataclass(slots=True)
class Conversation:
    """The readings of a chat in their order. ``written`` are the files that it made or went on with and may replace."""

    turns: list[Turn] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)

    def save(self, path: Path) -> None:
        """Write everything to a JSON file that :meth:`load` reads.

        Raises:
            UsageError: where a file is there that this chat neither wrote nor loaded.
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
            turns = [_turn(told) for told in _LIST.validate_python(json.loads(raw)["turns"])]
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError, UsageError):
            raise DataError(f"{path} is no saved conversation.", "Give a file that /save wrote.") from None
        self.turns = turns
        self.written.add(path.resolve())

    def export(self, path: Path) -> None:
        """Write the readings for people (``.md``) or programs (``.jsonl``). Errors as for :meth:`save`."""
        if path.suffix.lower() == ".jsonl":
            self._write(path, (json_line(turn.to_dict()) for turn in self.turns))
        elif path.suffix.lower() == ".md":
            self._write(path, (_markdown(number, turn).encode() for number, turn in enumerate(self.turns, 1)))
        else:
            raise UsageError(f"{path.name} does not say its form.", "End it with .md or .jsonl.")

    def history(self, width: int) -> list[str]:
        """One line a message, of so many columns: its number, what each lens saw, and its beginning."""
        heads = [f"{number:>3}  {_headline(turn)}  " for number, turn in enumerate(self.turns, 1)]
        return [head + excerpt(turn.text, width - len(head)) for head, turn in zip(heads, self.turns, strict=True)]

    def timeline(self, width: int, ascii_only: bool = False) -> str:
        """The mood from first to last as steps, low for negative and high for positive, and the last names.

        Where both lenses had a part, each has a line, with a gap where it did not look.
        """
        seen = [{reading.lens: reading for reading in readings(turn)} for turn in self.turns]
        lenses = [lens for lens in Lens if any(lens in turn for turn in seen)]
        lines = []
        for lens in lenses:
            names = " → ".join(turn[lens].emotion for turn in seen[-3:] if lens in turn)
            title = "mood" if len(lenses) == 1 else str(lens)
            room = max(5, width - len(names) - len(title) - 4)
            steps = "".join(step(mood(turn[lens])) if lens in turn else " " for turn in seen[-room:])
            lines.append(f"{title}  {steps}  {names}".rstrip())
        shown = "\n".join(lines)
        return shown.translate(_ASCII) if ascii_only else shown

    def _write(self, path: Path, pieces: Iterable[bytes]) -> None:
        with explained(path):
            if path.exists() and path.resolve() not in self.written:
                raise UsageError(f"{path} exists already.", "Choose another name.")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.writelines(pieces)
        self.written.add(path.resolve())


def mood(turn: Analysis) -> float:
    """-1 (surely negative) to 1 (surely positive); 0 where the emotion is neither, or the model abstained."""
    return _SIGN.get(tone(turn), 0.0) * turn.confidence


def step(value: float) -> str:
    """One of eight steps for a mood of -1 to 1."""
    return _STEPS[min(7, int((value + 1) * 4))]


def readings(turn: Turn) -> list[Analysis]:
    """The one reading of a turn, or the author's and the reader's."""
    return [turn.author, turn.reader] if isinstance(turn, Comparison) else [turn]


def excerpt(text: str, width: int) -> str:
    """The beginning of a text on one line of so many columns, but at least ten."""
    width = max(10, width)
    line = Text(visible(" ".join(text[: 4 * width].split())))
    line.truncate(width, overflow="ellipsis")
    return line.plain


def _headline(turn: Turn) -> str:
    return " | ".join(f"{reading.emotion} {percent(reading.confidence)}" for reading in readings(turn))


def _turn(told: dict[str, Any]) -> Turn:
    """A turn as it was saved; how far two lenses part is worked out anew.

    Raises:
        ValueError, KeyError, TypeError, UsageError: for what was never saved.
    """
    if "divergence" not in told:
        return _checked(told)
    author, reader = _checked(told["author"]), _checked(told["reader"])
    if (author.lens, reader.lens, author.text) != (Lens.AUTHOR, Lens.READER, reader.text):
        raise ValueError("the readings do not belong together")
    check_shared(None if author.taxonomy == Lens.AUTHOR.native else author.taxonomy)
    noise_line = told["divergence"]["noise_line"]
    return compare(author, reader, None if noise_line is None else float(noise_line))


def _checked(told: object) -> Analysis:
    """A reading that can be shown."""
    turn = _READING.validate_python(told)
    load_taxonomy(turn.lens.native).index(turn.fine_emotion)
    if tuple(turn.scores) != load_taxonomy(turn.taxonomy).labels or not {turn.emotion, *turn.emotions} <= {
        *turn.scores
    }:
        raise ValueError("the labels do not fit")
    if not all(
        isinstance(score, (int, float)) and 0 <= score <= 1 for score in (*turn.scores.values(), turn.confidence)
    ):
        raise ValueError("a score is no probability")
    return turn


def _markdown(number: int, turn: Turn) -> str:
    quoted = "\n".join(f"> {line}" for line in _plain(turn.text).split("\n"))
    named = ", ".join(f"{_lens_of(turn, one)}{one.emotion} ({percent(one.confidence)})" for one in readings(turn))
    told = [f"{_lens_of(turn, one).capitalize()}{_plain(one.reasoning)}" for one in readings(turn) if one.reasoning]
    if isinstance(turn, Comparison):
        told.append(turn.divergence.summary)
    return "\n\n".join((f"## {number}. {named}", quoted, *told)) + "\n\n"


def _lens_of(turn: Turn, reading: Analysis) -> str:
    return f"{reading.lens} lens: " if isinstance(turn, Comparison) else ""


def _plain(text: str) -> str:
    return html.escape(visible(text), quote=False)
