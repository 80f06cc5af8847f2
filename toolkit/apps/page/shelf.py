"""The models that a page has open: loaded once for all its visitors, closed when others are wanted more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.settings import Settings, wanted_model

if TYPE_CHECKING:
    from toolkit.inference.worker import WorkerModel

ROOM = 2
LOOK_EVERY = 0.2  # seconds

Progress = Callable[[int, int, str], None]


class _Place:
    """One model: its loading, how far that is, how many use it, and when somebody last did."""

    def __init__(self) -> None:
        self.loading: Future[WorkerModel] = Future()
        self.told = (0, 0, "")
        self.users = 0
        self.used = time.monotonic()

    def tell(self, done: int, total: int, step: str) -> None:
        """Remember how far the loading is."""
        self.told = (done, total, step)

    def close(self) -> None:
        """End the model, once it is loaded."""
        self.loading.add_done_callback(_close)


class Shelf:
    """Models in worker processes; ``room`` stay open, more only while they are in use. Safe in many threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._lock = room, threading.Lock()
        self._places: dict[str | None, _Place] = {}

    def prepare(self, settings: Settings) -> None:
        """Begin to load the model that the settings name, without waiting for it.

        Raises:
            UsageError: where no shipped model knows the lens.
        """
        self._place(settings)

    @contextmanager
    def borrowed(self, settings: Settings, progress: Progress = lambda *_: None) -> Iterator[WorkerModel]:
        """The model that the settings name, which stays open as long as the context does.

        Args:
            progress: called in this thread while the model is built or loaded.

        Raises:
            EmotionLRMError, ConvertError: as WorkerModel.load; the next caller tries again.
        """
        place = self._place(settings, users=1)
        try:
            yield _loaded(place, progress)
        finally:
            with self._lock:
                place.users -= 1
                place.used = time.monotonic()
            self._tidy()

    def close(self) -> None:
        """End all models."""
        with self._lock:
            places, self._places = self._places, {}
        for place in places.values():
            place.close()

    def _place(self, settings: Settings, users: int = 0) -> _Place:
        name = wanted_model(settings)
        with self._lock:
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = _Place()
                # In a thread of its own: a visitor who goes away must not stop what others wait for.
                threading.Thread(target=self._load, args=(name, settings, place), daemon=True).start()
            place.users += users
        return place

    def _load(self, name: str | None, settings: Settings, place: _Place) -> None:
        from toolkit.inference.worker import WorkerModel

        try:
            model = WorkerModel.load(
                name, threads=settings.threads, gpu_layers=settings.gpu_layers, adapter=settings.adapter,
                progress=place.tell,
            )  # fmt: skip
        except Exception as error:
            with self._lock:
                if self._places.get(name) is place:
                    del self._places[name]
            place.loading.set_exception(error)
        else:
            place.loading.set_result(model)

    def _tidy(self) -> None:
        """Close what nobody uses: models beyond the room, the longest unused first, and models that have ended."""
        with self._lock:
            idle = [(name, place) for name, place in self._places.items() if place.loading.done() and not place.users]
            idle.sort(key=lambda item: item[1].used)
            beyond = max(0, len(self._places) - self._room)
            ended = [item for item in idle[beyond:] if not item[1].loading.result().ready]
            for name, _ in (closing := idle[:beyond] + ended):
                del self._places[name]
        for _, place in closing:
            place.close()


def _close(loading: Future[WorkerModel]) -> None:
    if loading.exception() is None:
        loading.result().close()


def _loaded(place: _Place, progress: Progress) -> WorkerModel:
    while not place.loading.done():
        try:
            return place.loading.result(LOOK_EVERY)
        except NotYetError:
            progress(*place.told)
    return place.loading.result()
