"""Rows to outcomes: the same text is asked once, a text that fails costs its row, and memory stays bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from convert.errors import ConvertError
from toolkit.apps.tables import Row
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError
from toolkit.inference.request import Wish

REMEMBERED = 8192
LONGEST_REMEMBERED = 2000
WAITING = 4096
HOPELESS = 20

Outcome = Analysis | str | None
Failure = EmotionLRMError | ConvertError


class Predictor(Protocol):
    """What reads texts. One that also has ``outcomes``, as WorkerModel does, answers failures in their place."""

    name: str

    def analyze_many(
        self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str
    ) -> Iterator[Analysis]: ...


class _Question:
    """A text that was handed to the predictor, and its answer once there is one."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Outcome = None) -> None:
        self.outcome = outcome


class Answers:
    """The outcomes of rows, in order; iterate once.

    An outcome is an analysis, None for a text without words, or a sentence that says what went wrong.

    Raises:
        EmotionLRMError: where 20 texts in a row failed, as they do once the model itself is gone.
    """

    def __init__(self, predictor: Predictor, rows: Iterable[Row], wish: Wish) -> None:
        self._predictor, self._rows, self._wish = predictor, iter(rows), wish
        self._known: OrderedDict[str, _Question] = OrderedDict()
        self._waiting: deque[tuple[Row, _Question]] = deque()
        self._asked: deque[_Question] = deque()
        self._open: set[_Question] = set()
        self._more = True
        self._failures = 0

    def __iter__(self) -> Iterator[tuple[Row, Outcome]]:
        while self._more:
            for outcome in ask(self._predictor, self._texts(), self._wish):
                question = self._asked.popleft()
                question.outcome = self._told(outcome)
                self._open.discard(question)
                yield from self._ready()
            yield from self._ready()

    def _texts(self) -> Iterator[str]:
        """The texts that have to be asked; ends for a moment where too many rows wait for one answer."""
        for row in self._rows:
            question, is_new = self._question(row)
            self._waiting.append((row, question))
            if is_new:
                self._asked.append(question)
                self._open.add(question)
                yield row.text
            if len(self._waiting) >= WAITING:
                return
        self._more = False

    def _question(self, row: Row) -> tuple[_Question, bool]:
        if row.error is not None or not row.text.strip():
            return _Question(row.error), False
        if row.text in self._known:
            self._known.move_to_end(row.text)
            return self._known[row.text], False
        question = _Question()
        if len(row.text) <= LONGEST_REMEMBERED:
            self._known[row.text] = question
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return question, True

    def _ready(self) -> Iterator[tuple[Row, Outcome]]:
        while self._waiting and self._waiting[0][1] not in self._open:
            row, question = self._waiting.popleft()
            yield row, question.outcome

    def _told(self, outcome: Analysis | Failure) -> Outcome:
        if isinstance(outcome, Analysis):
            self._failures = 0
            return outcome
        self._failures += 1
        if self._failures >= HOPELESS:
            raise outcome
        return str(outcome)


def ask(predictor: Predictor, texts: Iterator[str], wish: Wish) -> Iterator[Analysis | Failure]:
    """An analysis or the failure of every text, in order."""
    options: dict[str, Any] = {"lens": wish.lens, "taxonomy": wish.taxonomy, "mode": wish.mode}
    if hasattr(predictor, "outcomes"):
        yield from predictor.outcomes(texts, **options)
        return
    unanswered: deque[str] = deque()

    def handed() -> Iterator[str]:
        for text in texts:
            unanswered.append(text)
            yield text

    done = False
    while not done:
        try:
            for analysis in predictor.analyze_many(handed(), **options):
                unanswered.popleft()
                yield analysis
            done = True
        except (EmotionLRMError, ConvertError):
            if not unanswered:
                raise
            # Several may have been on their way: each is asked alone, so that only the culprit is blamed.
            while unanswered:
                yield _alone(predictor, unanswered.popleft(), options)


def _alone(predictor: Predictor, text: str, options: dict[str, Any]) -> Analysis | Failure:
    try:
        return next(predictor.analyze_many(iter([text]), **options))
    except (EmotionLRMError, ConvertError) as error:
        return error
