"""What a model makes of texts that cannot be read, on an engine that is as sure of each label as of any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.inference.calibration import Calibration
from toolkit.inference.engine import Choose, Explained, Reading
from toolkit.inference.model import EmotionModel

Many = Callable[[EmotionModel, Any], Iterator[Any]]
BAD = [("  \n", "is empty"), (None, "is no string but NoneType"), (float("nan"), "is no string but float"), (7, "int")]
WAYS: list[Many] = [
    lambda model, texts: model.analyze_many(texts),
    lambda model, texts: model.analyze_many(texts, mode="fast"),
    lambda model, texts: model.compare_many(texts),
    lambda model, texts: model.compare_many(texts, mode="fast"),
]


class Undecided:
    """Gives every label the same probability."""

    def read(self, texts: Iterable[str | None], lens: Lens) -> Iterator[Reading]:
        size = len(load_taxonomy(lens.native).labels)
        return (Reading(np.full(size, 1 / size), 1.0) for text in texts if text is not None)

    def explain(
        self, texts: Iterable[str | None], lens: Lens, choose: Choose, watch: object = None
    ) -> Iterator[Explained]:
        assert watch is None
        return (Explained(reading, choose(reading.posterior), "So it is.") for reading in self.read(texts, lens))

    def close(self) -> None:
        pass


@pytest.fixture
def model() -> EmotionModel:
    return EmotionModel(Undecided(), "undecided", Calibration(), tuple(Lens))


def text_of(result: Any) -> str:
    return str(getattr(result, "author", result).text)


@pytest.mark.parametrize("many", WAYS)
@pytest.mark.parametrize(("bad", "why"), BAD)
def test_a_text_that_cannot_be_read_costs_none_before_it_and_is_named(
    model: EmotionModel, many: Many, bad: Any, why: str
) -> None:
    found = many(model, iter(["a", "b", bad, "c"]))
    assert [text_of(next(found)), text_of(next(found))] == ["a", "b"]
    with pytest.raises(UsageError, match=f"The text at index 2 {why}" if "is" in why else why):
        next(found)


@pytest.mark.parametrize("many", WAYS)
def test_one_text_in_place_of_many_is_refused(model: EmotionModel, many: Many) -> None:
    with pytest.raises(UsageError, match="One text was given where several belong"):
        list(many(model, "I am sad"))


def test_a_single_text_is_named_without_a_number(model: EmotionModel) -> None:
    for read in (model.analyze, model.compare):
        with pytest.raises(UsageError, match=r"^The text is empty"):
            read(" ")


def test_a_source_that_says_so_may_pause(model: EmotionModel) -> None:
    found = model.analyze_many(["a", None, "b"], mode="fast", pauses=True)
    assert [one.text for one in found] == ["a", "b"]
