"""The async twin has the words of the worker model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from toolkit.contract.lens import Lens
from toolkit.errors import UsageError
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.protocol import RequestTimeoutError, WorkerDiedError
from toolkit.inference.worker import WorkerModel

LEFT_OUT = {"submit", "stream"}  # the docstring says what to take instead


def words(model: type) -> set[str]:
    return {name for name in dir(model) if not name.startswith("_")}


def test_the_twin_has_every_word_but_those_that_its_docstring_leaves_out(worker: WorkerModel) -> None:
    twin = AsyncEmotionModel(worker)
    assert words(WorkerModel) - words(AsyncEmotionModel) == LEFT_OUT
    assert all(f"``{word}``" in str(AsyncEmotionModel.__doc__) for word in LEFT_OUT)
    assert (twin.name, twin.lenses, twin.noise_line) == ("stand-in", (Lens.AUTHOR, Lens.READER), 0.1)
    assert (twin.pids, twin.ready) == (worker.pids, True)
    assert twin.wish(mode="fast") == worker.wish(mode="fast")


def some(texts: list[str]) -> Iterator[str]:
    yield from texts


async def arriving(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


@pytest.mark.parametrize("source", [list, some, arriving])
def test_many_texts_are_compared(worker: WorkerModel, source: Any) -> None:
    texts = [f"text {i}" for i in range(200)]

    async def use() -> list[dict[str, Any]]:
        compared = AsyncEmotionModel(worker).compare_many(source(texts), taxonomy="shared10", mode="fast")
        return [both.to_dict() async for both in compared]

    found = asyncio.run(use())
    assert [both["text"] for both in found] == texts
    here = [both.to_dict() for both in worker.compare_many(texts, taxonomy="shared10", mode="fast")]
    assert [both["divergence"] for both in found] == [both["divergence"] for both in here]


def test_wrong_usage_is_refused_before_a_text_is_read(worker: WorkerModel) -> None:
    for model in (worker, AsyncEmotionModel(worker)):
        for wrong in ({"taxonomy": "ekman"}, {"mode": "slow"}):
            with pytest.raises(UsageError):
                model.compare_many(["text"], **wrong)  # type: ignore[arg-type]


def test_the_first_failure_ends_the_comparisons(worker: WorkerModel) -> None:
    async def use() -> None:
        compared = AsyncEmotionModel(worker).compare_many(["a", "abort", "b"])
        assert (await anext(compared)).author.text == "a"
        with pytest.raises(WorkerDiedError):
            await anext(compared)

    asyncio.run(use())
    compared = worker.compare_many(["a", "abort", "b"])
    assert next(compared).author.text == "a"
    with pytest.raises(WorkerDiedError):
        next(compared)


def test_a_comparison_has_a_time_limit(worker: WorkerModel) -> None:
    with pytest.raises(RequestTimeoutError, match=r"0\.2 s"):
        worker.compare("sleep 3", timeout=0.2)
    assert worker.compare("text", timeout=60).author.text == "text"


@pytest.mark.usefixtures("stand_in")
def test_comparing_needs_room_for_one_text_only() -> None:
    with WorkerModel.load(capacity=1) as model:
        assert [both.reader.text for both in model.compare_many(["a", "b"], timeout=60)] == ["a", "b"]
