"""Scores on surface signs and on a reader's probabilities, by hand; flags drop nothing unless they are asked to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.contract.example import Example
from toolkit.corpora.clean import clean
from toolkit.corpora.linguistic import LinguisticConfig, check_texts, drop_flagged, factual, sarcastic


class TwoTexts:
    """Sure of neutral for the first text, torn between the emotions for the second."""

    labels = ("joy", "anger", "neutral")

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[0.05, 0.0, 0.95], [0.4, 0.4, 0.2]])[: len(texts)]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("The bridge opened in 1932.", 1.0),
        ("The bridge opened last century.", 0.75),
        ("I love that bridge, it is so beautiful!", 0.0),
        ("Your report has 12 pages.", 0.75),
    ],
)
def test_factual_counts_signs(text: str, score: float) -> None:
    assert factual(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("What a lovely day.", 0.0),
        ("Great plan /s", 1.0),
        ("and/so on, and w/salt", 0.0),
        ("Yeah right, like the “expert” he is", 0.9),
        ("Oh great, yeah, right, obviously /s", 1.0),
    ],
)
def test_sarcasm_adds_up_marks(text: str, score: float) -> None:
    assert sarcastic(text) == pytest.approx(score)


def test_probabilities_give_low_affect_and_ambiguity_and_flags_follow() -> None:
    examples = [Example("It opens at 9.", ("neutral",), id="1"), Example("You again", ("joy",), id="2")]
    plain, torn = check_texts(examples, TwoTexts(), LinguisticConfig())
    assert plain.scores["low_affect"] == pytest.approx(0.95)
    assert plain.scores["ambiguous"] == pytest.approx(0.0, abs=1e-6)
    assert torn.scores["ambiguous"] == pytest.approx(1.0)
    assert plain.flags == ("factual", "low_affect")
    assert torn.flags == ("ambiguous",)
    row = plain.to_row(examples[0])
    assert (row["id"], row["flags"]) == ("1", ["factual", "low_affect"])


def test_flags_drop_only_what_is_named() -> None:
    example = Example("It opens at 9.", ("neutral",))
    checks = check_texts([example], TwoTexts(), LinguisticConfig())
    kept, report = clean([example], [])
    assert drop_flagged(kept, checks, report, LinguisticConfig()) == [example]
    assert drop_flagged(kept, checks, report, LinguisticConfig(drop=("factual",))) == []
    assert report.dropped == {"flagged as factual": 1}
    assert report.kept == 0
