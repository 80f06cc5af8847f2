"""Scores on surface signs and on two witnesses, by hand; flags drop nothing unless they are asked to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.contract.example import Example
from toolkit.corpora.checks import Check, drop_flagged
from toolkit.corpora.clean import clean
from toolkit.corpora.linguistic import LinguisticConfig, calm, check_texts, plain, sarcastic

FACT = Example("The bridge at Ely opened in 1932.", ("neutral",), id="1")
TORN = Example("You again", ("anger", "joy"), id="2", soft={"anger": 0.4, "joy": 0.4, "neutral": 0.2})


class TwoTexts:
    """Sure of neutral for the first text, torn between two families for the second; the rows need not sum to 1."""

    labels = ("joy", "anger", "neutral")

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[0.05, 0.05, 0.9], [0.8, 0.8, 0.0]])[: len(texts)]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("The bridge opened in 1932.", 1.0),
        ("I love that bridge.", 0.5),
        ("What a BRIDGE!", 0.25),
        ("I LOVE THAT BRIDGE!!!", 0.125),
        ("so weird...", 0.25),
        ("Nice 😂", 0.25),
    ],
)
def test_calm_is_halved_for_each_sign_of_heat(text: str, score: float) -> None:
    assert calm(text) == score


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("The bridge at Ely opened in 1932.", 7),
        ("The bridge was opened last.", 6),  # no detail
        ("Maybe the bridge at Ely opened in 1932.", 5),  # a guess, and it opens with one
        ("The bridge at Ely was nearly opened in 1932.", 6),  # an adverb of manner
        ("We opened the bridge at Ely in 1932.", 5),  # persons, and they open it
        ("Opened 1932", 4),
        ("Is that great bridge at Ely yours?!", 2),
    ],
)
def test_plain_counts_seven_signs(text: str, signs: int) -> None:
    assert plain(text) == pytest.approx(signs / 7)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("What a lovely day.", 0.0),
        ("Great plan /s", 1.0),
        ("Great plan. /S)", 1.0),
        ("and/so on, and w/salt", 0.0),
        ("the tag /s stands in the middle here", 0.0),
        ("Yeah, right, like the “expert” he is", 1.0),
        ("Ah yes, the classic excuse", 0.7),
        ("Ah yes, I see", 0.0),
        ("you can’t SaY tHaT here", 0.7),
        ("r/ThIsIsFiNe and JavaScript on a MacBook", 0.0),
        ("It is clearly fine", 0.2),
        ("Oh great, surprise surprise, how dare they", 1.0),
    ],
)
def test_sarcasm_adds_up_marks(text: str, score: float) -> None:
    assert sarcastic(text) == pytest.approx(score)


def test_both_witnesses_count_and_flags_follow() -> None:
    fact, torn = check_texts([FACT, TORN], TwoTexts(), LinguisticConfig())
    assert fact.scores["low_affect"] == fact.scores["factual"] == pytest.approx(0.95)
    assert fact.scores["ambiguous"] == 0.0  # the raters do not part, whatever the words do
    assert fact.flags == ("factual", "low_affect")
    # Two families in equal parts out of seven: ln 2 / ln 7; the raters leave a fifth to neutral.
    raters = -(0.8 * np.log(0.4) + 0.2 * np.log(0.2)) / np.log(7)
    assert torn.scores["ambiguous"] == pytest.approx(np.sqrt(raters * np.log(2) / np.log(7)))
    assert check_texts([FACT, TORN], TwoTexts(), LinguisticConfig(ambiguous=0.4))[1].flags == ("ambiguous",)
    row = fact.to_row(FACT)
    assert (row["id"], row["flags"], row["notes"]) == ("1", ["factual", "low_affect"], {})


def test_a_label_that_somebody_gave_speaks_against_low_affect() -> None:
    moved = Example(FACT.text, ("joy",))
    (check,) = check_texts([moved], TwoTexts(), LinguisticConfig())
    assert check.scores["low_affect"] == pytest.approx(0.45)
    assert check.flags == ()


def test_two_checks_of_a_text_become_one() -> None:
    both = Check({"a": 0.5}, ("a",)) | Check({"b": 0.25}, ("b",), {"b": "why"})
    assert both == Check({"a": 0.5, "b": 0.25}, ("a", "b"), {"b": "why"})


def test_flags_drop_only_what_is_named() -> None:
    checks = check_texts([FACT], TwoTexts(), LinguisticConfig())
    kept, report = clean([FACT], {})
    assert drop_flagged(kept, checks, report, ()) == ([FACT], checks)
    assert drop_flagged(kept, checks, report, ("ambiguous",)) == ([FACT], checks)
    assert drop_flagged(kept, checks, report, ("factual",)) == ([], [])
    assert report.dropped == {"flagged as factual": 1}
    assert report.kept == 0
