"""How far the lenses part: numbers worked out by hand, and many texts through both."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.inference.divergence import (
    CHUNK,
    compare,
    compare_many,
    jensen_shannon,
    noise_line,
    shared_shares,
    summarize,
)

APART = "author lens: joy, reader lens: sadness"


def reading(lens: Lens, scores: dict[str, float], taxonomy: str | None = None, outside: float = 0.0) -> Analysis:
    taxonomy = taxonomy or lens.native
    every = dict.fromkeys(load_taxonomy(taxonomy).labels, 0.0) | scores
    top = max(every, key=lambda label: every[label])
    return Analysis(
        "a text", lens, taxonomy, "fast", top, top, every[top], False, (top,), every, 1.0, outside, None, (), "m"
    )


def test_the_divergence_of_equal_and_of_disjoint_distributions() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])
    assert jensen_shannon(p, p) == 0.0
    assert jensen_shannon(p, q) == 1.0
    # half of each lies in common: H(1/4, 3/4) - (0 + 1) / 2 bits
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(0.811278 - 0.5, abs=1e-6)


def test_only_the_nine_shared_feelings_are_compared() -> None:
    shares, outside = shared_shares(reading(Lens.AUTHOR, {"joy": 0.3, "sadness": 0.1, "neutral": 0.4, "relief": 0.2}))
    assert (len(shares), outside) == (9, pytest.approx(0.6))
    assert sorted(shares)[-2:] == [pytest.approx(0.25), pytest.approx(0.75)]
    shares, outside = shared_shares(reading(Lens.READER, {"joyful": 0.3, "excited": 0.3, "jealous": 0.4}))
    assert (shares.max(), outside) == (1.0, pytest.approx(0.4))


def test_readings_in_the_shared_taxonomy_give_the_same() -> None:
    native = reading(Lens.AUTHOR, {"joy": 0.3, "sadness": 0.1, "neutral": 0.4, "relief": 0.2})
    ten = reading(Lens.AUTHOR, {"joy": 0.375, "sadness": 0.125, "neutral": 0.5}, "shared10", outside=0.2)
    for one, other in zip(shared_shares(native), shared_shares(ten), strict=True):
        np.testing.assert_allclose(one, other)


def test_the_noise_line_is_passed_by_one_comparable_text_in_twenty() -> None:
    labels = load_taxonomy("goemotions").labels
    joy, anger, neutral = (labels.index(label) for label in ("joy", "anger", "neutral"))
    one = np.zeros((101, len(labels)))
    one[:100, joy] = 1.0
    one[100, neutral] = 1.0  # left out: nothing of it has a place among the nine
    other = one.copy()
    other[:3] = 0.0
    other[:3, anger] = 1.0
    assert noise_line(one, other) == 0.0  # three of a hundred are fewer than one in twenty
    other[:10] = 0.0
    other[:10, anger] = 1.0
    assert noise_line(one, other) == 1.0
    with pytest.raises(UsageError, match="no text"):
        noise_line(one[100:], other[100:])


def test_lenses_that_part() -> None:
    found = compare(reading(Lens.AUTHOR, {"joy": 1.0}), reading(Lens.READER, {"sad": 0.9, "jealous": 0.1}), 0.2)
    told = found.to_dict()["divergence"]
    assert (told["score"], told["author_emotion"], told["reader_emotion"]) == (1.0, "joy", "sadness")
    assert told["outside"] == {"author": 0.0, "reader": pytest.approx(0.1)}
    assert told["noise_line"] == 0.2
    assert told["summary"] == (
        f"The lenses part by 1.00 of 1 ({APART}), farther than two models of one lens did on 19 of 20 comments."
    )
    assert list(found.to_dict()) == ["text", "author", "reader", "divergence"]


def test_no_score_where_too_much_lies_outside() -> None:
    mostly_neutral = reading(Lens.AUTHOR, {"neutral": 0.61, "joy": 0.39})
    assert compare(mostly_neutral, reading(Lens.READER, {"joyful": 1.0}), 0.1).divergence.score is None
    just_inside = reading(Lens.AUTHOR, {"neutral": 0.59, "joy": 0.41})
    assert compare(just_inside, reading(Lens.READER, {"joyful": 1.0}), 0.1).divergence.score == 0.0


@pytest.mark.parametrize(
    ("score", "reader", "line", "sentence"),
    [
        (
            None, "sadness", 0.1,
            "Too little of what a lens sees has a place among the shared labels, so the two cannot be compared.",
        ),
        (
            0.3, "sadness", None,
            f"The lenses differ by 0.30 of 1 ({APART}); how much of that is noise was not measured.",
        ),
        (
            0.1, "sadness", 0.1,
            f"The lenses part by 0.10 of 1 ({APART}); "
            "two models of one lens parted as far on at least one comment in 20.",
        ),
        (
            0.11, "joy", 0.1,
            "The lenses part by 0.11 of 1 (both lean to joy), "
            "farther than two models of one lens did on 19 of 20 comments.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_claims_no_more_than_was_measured(
    score: float | None, reader: str, line: float | None, sentence: str
) -> None:
    assert summarize(score, "joy", reader, line) == sentence


class BothLenses:
    """Reads every text as joy, and as sad; notes what it was asked."""

    noise_line = None

    def __init__(self) -> None:
        self.asked: list[tuple[Lens, str]] = []

    def analyze_many(
        self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str  # noqa: ARG002
    ) -> Iterator[Analysis]:  # fmt: skip
        for text in texts:
            self.asked.append((lens, text))
            yield reading(lens, {"joy": 1.0} if lens is Lens.AUTHOR else {"sad": 1.0})


def test_many_texts_are_read_lazily_through_both() -> None:
    model = BothLenses()
    found = compare_many(model, (str(number) for number in itertools.count()))
    first = next(found)
    assert (first.author.lens, first.reader.lens, first.divergence.score) == (Lens.AUTHOR, Lens.READER, 1.0)
    assert len(model.asked) == 2 * CHUNK
    assert len(list(itertools.islice(found, CHUNK))) == CHUNK
    assert len(model.asked) == 4 * CHUNK


def test_a_taxonomy_that_is_not_shared_is_refused() -> None:
    with pytest.raises(UsageError, match="ekman") as error:
        next(compare_many(BothLenses(), ["x"], taxonomy="ekman"))
    assert "shared10" in error.value.hint
