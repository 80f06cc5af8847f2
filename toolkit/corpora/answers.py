"""Answers of a teacher on disk, so that nothing is asked or paid for twice: JSON lines, only ever added to."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from convert.files import explained


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote, and the tokens of prompt and answer together."""

    content: str
    tokens: int


class AnswerStore:
    """The answers in one file by the keys of their requests and of whoever was asked.

    A line that is damaged, as the last one may be after a crash, counts as not there. Used as a context; many threads
    may read and add.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._file: BufferedRandom | None = None

    def __enter__(self) -> AnswerStore:
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            self._file.seek(0)
            whole = True
            for line in self._file:
                whole = line.endswith(b"\n")
                self._remember(line)
            if not whole:
                self._file.write(b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Answer | None:
        """The answer to the request with this key, or None where it was never asked."""
        return self._known.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Keep the answer; it is on disk when this returns."""
        row = {"key": key, "content": answer.content, "tokens": answer.tokens}
        line = json.dumps(row).encode("ascii") + b"\n"
        with self._lock, explained(self.path):
            assert self._file is not None, "the store is used as a context"
            self._file.write(line)
            self._file.flush()
            self._known[key] = answer

    def _remember(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            self._known[str(row["key"])] = Answer(str(row["content"]), int(row["tokens"]))
        except (ValueError, KeyError, TypeError):
            return
