"""The models of a page: shared while they are used, closed when they are not, tried again after a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from toolkit.apps.page.shelf import Shelf
from toolkit.errors import ModelError, UsageError
from toolkit.inference.worker import WorkerModel
from toolkit.settings import Settings


def named(name: str) -> Settings:
    return Settings(model=name)


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_visitors_share_a_model(shelf: Shelf) -> None:
    with shelf.borrowed(named("a")) as first, shelf.borrowed(named("a")) as second:
        assert first is second
        assert len(first.pids) == 1
        assert first.analyze("hello").text == "hello"


def test_visitors_who_come_at_once_load_it_once(shelf: Shelf) -> None:
    found: list[WorkerModel] = []

    def visit() -> None:
        with shelf.borrowed(named("a")) as model:
            found.append(model)

    visitors = [threading.Thread(target=visit) for _ in range(5)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len({id(model) for model in found}) == 1
    assert len(found) == 5


def test_the_model_that_was_not_used_for_longest_makes_room(shelf: Shelf) -> None:
    opened = {}
    for name in ("a", "b", "a", "c"):
        with shelf.borrowed(named(name)) as model:
            opened[name] = model
    eventually(lambda: not opened["b"].ready)
    assert opened["a"].ready
    assert opened["c"].ready


def test_a_model_in_use_is_never_closed(shelf: Shelf) -> None:
    with shelf.borrowed(named("a")) as model:
        for name in ("b", "c", "d"):
            with shelf.borrowed(named(name)):
                pass
        assert model.analyze("still here").text == "still here"


def test_what_was_prepared_is_what_is_borrowed(shelf: Shelf) -> None:
    shelf.prepare(named("a"))
    seen: list[tuple[int, int, str]] = []
    with shelf.borrowed(named("a"), lambda *told: seen.append(told)) as model:
        assert model.ready
    assert all(step in ("", "loading") for _, _, step in seen)


def test_a_model_that_does_not_load_is_tried_again(shelf: Shelf) -> None:
    for _ in range(2):
        with pytest.raises(ModelError, match="There is no model 'missing'"), shelf.borrowed(named("missing")):
            pass
    with shelf.borrowed(named("fine")) as model:
        assert model.ready


def test_a_model_that_ended_is_loaded_anew(shelf: Shelf) -> None:
    with shelf.borrowed(named("a")) as model:
        model.close()
    with shelf.borrowed(named("a")) as again:
        assert again is not model
        assert again.analyze("hello").text == "hello"


def test_a_progress_that_raises_leaves_the_loading_alone(shelf: Shelf) -> None:
    class GoneError(Exception):
        pass

    def leave(*_: object) -> None:
        raise GoneError

    with pytest.raises(GoneError), shelf.borrowed(named("sleepy"), leave):
        pass
    with shelf.borrowed(named("sleepy")) as model:
        assert model.ready


def test_a_lens_that_does_not_ship_is_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> str:
        raise UsageError("No model that ships reads through it.", "Name one.")

    monkeypatch.setattr("toolkit.apps.page.shelf.wanted_model", none)
    with pytest.raises(UsageError):
        shelf.prepare(Settings(lens="reader"))


def test_closing_ends_every_worker(shelf: Shelf) -> None:
    with shelf.borrowed(named("a")) as model:
        pass
    shelf.close()
    eventually(lambda: not model.ready)
