"""What the rows of a batch say together, counted one by one in memory that does not grow with them."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from toolkit.apps.periods import Timeline
from toolkit.apps.tally import Tally, readings

STEPS = 20
KEPT = 10
KEPT_OF_A_PAIR = 2
_LONGEST = 400


class Extremes:
    """The few rows of the highest value, each text once; a text always comes with the same value.

    Args:
        sign: -1 for those of the lowest.
        kept: how many; ``KEPT`` by default.
    """

    def __init__(self, sign: int = 1, kept: int | None = None) -> None:
        self._sign, self._kept = sign, kept or KEPT
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._texts: set[str] = set()

    def add(self, value: float, row: int, text: str, **told: Any) -> None:
        """Offer a row with what is to be told of it."""
        rank = self._sign * value
        if len(self._heap) == self._kept and rank <= self._heap[0][0]:
            return
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
        if text in self._texts:
            return
        self._texts.add(text)
        heapq.heappush(self._heap, (rank, -row, {"row": row, "text": text, **told}))
        if len(self._heap) > self._kept:
            self._texts.discard(heapq.heappop(self._heap)[2]["text"])

    def rows(self) -> list[dict[str, Any]]:
        """The rows, the most extreme first."""
        return [told for _, _, told in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


@dataclass(slots=True)
class View:
    """What was seen through one lens; ``steps`` counts confidences in equal steps from 0 to 1."""

    lens: str = ""
    taxonomy: str = ""
    texts: int = 0
    abstained: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    steps: list[int] = field(default_factory=lambda: [0] * STEPS)
    surest: Extremes = field(default_factory=Extremes)
    least_sure: Extremes = field(default_factory=lambda: Extremes(-1))
    timeline: Timeline = field(default_factory=Timeline)

    def add(self, reading: Mapping[str, Any], row: int, day: date | None) -> None:
        """Count one reading."""
        self.lens, self.taxonomy = reading["lens"], reading["taxonomy"]
        self.texts += 1
        self.abstained += reading["abstained"]
        label, confidence = reading["emotion"], reading["confidence"]
        self.labels[label] += 1
        self.steps[min(int(confidence * STEPS), STEPS - 1)] += 1
        for extremes in (self.surest, self.least_sure):
            extremes.add(confidence, row, reading["text"], emotion=label, confidence=confidence)
        if day is not None:
            self.timeline.add(day, label)


@dataclass(slots=True)
class Parted:
    """How far the lenses part on some texts: how many, the sum of the divergences, and how many pass the noise line."""

    texts: int = 0
    total: float = 0.0
    above: int = 0

    def add(self, score: float, noise_line: float | None) -> None:
        """Count one text."""
        self.texts += 1
        self.total += score
        self.above += noise_line is not None and score > noise_line

    @property
    def mean(self) -> float:
        """The mean divergence, 0 to 1."""
        return self.total / max(self.texts, 1)


@dataclass(slots=True)
class Parting:
    """Where two lenses part, over the texts on which they can be compared.

    Attributes:
        together: how often the lenses leaned to which shared labels, the author's first.
        by_label: by the shared label that the author's lens leans to.
        examples: of each pair of different labels the texts on which they part most.
        incomparable: texts of which a lens sees too much outside the shared labels.
    """

    noise_line: float | None = None
    incomparable: int = 0
    all: Parted = field(default_factory=Parted)
    by_label: defaultdict[str, Parted] = field(default_factory=lambda: defaultdict(Parted))
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: list[int] = field(default_factory=lambda: [0] * STEPS)
    examples: dict[tuple[str, str], Extremes] = field(default_factory=dict)

    def add(self, divergence: Mapping[str, Any], row: int, text: str) -> None:
        """Count one text."""
        self.noise_line, score = divergence["noise_line"], divergence["score"]
        if score is None:
            self.incomparable += 1
            return
        author, reader = divergence["author_emotion"], divergence["reader_emotion"]
        for counts in (self.all, self.by_label[author]):
            counts.add(score, self.noise_line)
        self.together[author, reader] += 1
        self.steps[min(int(score * STEPS), STEPS - 1)] += 1
        if author != reader:
            of_pair = self.examples.setdefault((author, reader), Extremes(kept=KEPT_OF_A_PAIR))
            of_pair.add(score, row, text, author=author, reader=reader, score=score)


@dataclass(slots=True)
class Overview:
    """Everything that the report of a batch shows; one view, or those of the author's and the reader's lens."""

    tally: Tally = field(default_factory=Tally)
    views: list[View] = field(default_factory=list)
    parting: Parting | None = None
    dated: int = 0

    def add(self, record: Mapping[str, Any], day: date | None = None) -> None:
        """Count one row of the output, and its date where it has one."""
        self.tally.add(record)
        found = readings(record)
        while len(self.views) < len(found):
            self.views.append(View())
        for view, reading in zip(self.views, found, strict=False):
            view.add(reading, record["row"], day)
        self.dated += bool(found) and day is not None
        if len(found) == 2:
            self.parting = self.parting or Parting()
            self.parting.add(record["divergence"], record["row"], record["text"])

    def add_all(self, records: Iterable[Mapping[str, Any]], days: Iterable[date | None] | None = None) -> None:
        """Count the rows of a run, with the date of each where there are any."""
        if days is None:
            for record in records:
                self.add(record)
            return
        for record, day in zip(records, days, strict=True):
            self.add(record, day)
