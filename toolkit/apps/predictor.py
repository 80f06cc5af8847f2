"""The classification as one object that any scheduler can carry: texts in, the rows of ``emotion-lrm batch`` out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from toolkit.apps.answers import Answers
from toolkit.apps.both import Pair, check_both, comparisons
from toolkit.apps.results import record_of
from toolkit.apps.tables import Row, row_of
from toolkit.settings import Settings, wanted_model

if TYPE_CHECKING:
    from toolkit.inference.worker import WorkerModel

_open: dict[tuple[int, Predictor], WorkerModel] = {}
_opening = threading.Lock()


@dataclass(frozen=True)
class Predictor:
    """Reads texts wherever it was carried to. Only these words travel; the model is loaded at the first call.

    Copies with the same words in one process share one model, which runs in a worker process of its own: a text that
    ends native code twice fails, and only that.

    Attributes:
        model: the name of a shipped model, which each machine builds from its own installation where it is not there
            yet, or a GGUF file that lies in the same place on every machine; None is the default one.
        threads: how many processors the model may keep busy.

    >>> Predictor(mode="fast")(["What a day!"])[0]["emotion"]                # doctest: +SKIP
    'joy'
    """

    model: str | None = None
    lens: str = "author"
    taxonomy: str | None = None
    mode: str = "explain"
    threads: int = 1
    gpu_layers: int = 0
    adapter: str | None = None

    def __call__(self, texts: Iterable[object], ids: Iterable[object] | None = None) -> list[dict[str, Any]]:
        """A row for every text, as ``emotion-lrm batch`` writes them; ``row`` counts the texts of this call.

        Args:
            texts: cells of any column; what is no text is a row with the status ``empty`` or ``error``.
            ids: as many cells; the number of the row stands in for one that is missing.

        Raises:
            EmotionLRMError, ConvertError: where the model cannot be had, or 20 texts in a row failed.
        """
        pairs = zip(texts, repeat(None) if ids is None else ids, strict=ids is not None)
        return list(self.records(row_of(number, text, key) for number, (text, key) in enumerate(pairs)))

    def records(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """The object of every row, in order; errors as for a call."""
        from toolkit.apps.batch import wish_of

        wish, model = wish_of(self.settings), self._model()
        if isinstance(wish, Pair):
            check_both(model)
        outcomes = comparisons(model, rows, wish) if isinstance(wish, Pair) else Answers(model, rows, wish)
        for row, outcome in outcomes:
            yield record_of(row, outcome, wish, model.name)

    @property
    def settings(self) -> Settings:
        """The same words as a command has them."""
        words = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings.model_validate(words)

    @property
    def name(self) -> str:
        """The model's name; loads it."""
        return self._model().name

    def close(self) -> None:
        """End the model of this process, if it is loaded; the next call loads it again."""
        with _opening:
            model = _open.pop((os.getpid(), self), None)
        if model is not None:
            model.close()

    def _model(self) -> WorkerModel:
        from toolkit.inference.worker import WorkerModel

        place = (os.getpid(), self)  # a forked process has no worker of its own yet
        with _opening:
            if place not in _open:
                _open[place] = WorkerModel.load(
                    wanted_model(self.settings), threads=self.threads, gpu_layers=self.gpu_layers, adapter=self.adapter
                )
            return _open[place]
