"""Copies without some of their words: what is struck, and what is learned of it."""

from __future__ import annotations

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.training.erasure import erased

TEXT = "Two hundred people in the hall and my hands wouldn't stop shaking on the way to the stage."
REASONING = "Hands that “wouldn't stop shaking” before a crowd show the nervousness of somebody about to speak."
SHAKING = Example(TEXT, ("nervousness",), id="a", reasoning=REASONING)


def test_most_copies_keep_the_quoted_words_and_their_label_and_some_lose_both() -> None:
    copies = erased([SHAKING] * 600, seed=1)
    assert len(copies) == 600
    kept = [copy for copy in copies if copy.target() == {"nervousness": 1.0}]
    assert 0.6 <= len(kept) / 600 <= 0.73
    assert all("wouldn't stop shaking" in copy.text for copy in kept)
    assert len({copy.text for copy in kept}) > 300
    without = TEXT.replace("wouldn't stop shaking ", "")
    struck = [(copy.text, copy.target()) for copy in copies if "shaking" not in copy.text]
    assert len(struck) == 600 - len(kept)
    assert all(pair == (without, {"nervousness": 0.5, "neutral": 0.5}) for pair in struck)
    assert all(copy.reasoning is None for copy in copies)


def test_a_copy_has_words_of_its_text_in_their_order() -> None:
    words = TEXT.split()
    for copy in erased([SHAKING] * 50, seed=2):
        rest = iter(words)
        assert all(word in rest for word in copy.text.split())


def test_no_copy_lacks_the_quoted_words_where_there_is_no_neutral_or_it_is_the_label() -> None:
    reader = Example(TEXT, ("anxious",), Lens.READER, "a", reasoning=REASONING)
    plain = Example("The hall opens at nine.", ("neutral",), reasoning="It says when it “opens” and is neutral.")
    for copy in erased([reader, plain] * 100, seed=3):
        assert "stop shaking" in copy.text or "opens" in copy.text
        assert set(copy.target().values()) == {1.0}


def test_a_text_whose_reasoning_quotes_nothing_of_it_has_no_copy() -> None:
    elsewhere = Example(TEXT, ("nervousness",), reasoning="The “trembling knees” show nervousness.")
    assert not erased([elsewhere, Example(TEXT, ("nervousness",))], seed=4)


def test_the_same_seed_strikes_the_same_words() -> None:
    assert erased([SHAKING] * 20, seed=5) == erased([SHAKING] * 20, seed=5) != erased([SHAKING] * 20, seed=6)
