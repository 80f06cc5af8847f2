"""The gate refuses each kind of bad chain for its own reason."""

from __future__ import annotations

import pytest

from toolkit.contract.example import Example
from toolkit.corpora.gate import DISAGREES, Judgement, PhrasingCap, check, five_words

EXAMPLE = Example("Thank you so much for the long and patient answer, my friend.", ("gratitude",))
GOOD = "The phrase “Thank you” acknowledges a good turn that somebody has done, which points to gratitude."


def test_a_good_chain_passes() -> None:
    assert check(EXAMPLE, GOOD) is None


@pytest.mark.parametrize(
    ("reasoning", "reason"),
    [
        (GOOD.lower(), "not in the answer's form"),
        (GOOD[:-1], "not in the answer's form"),
        (GOOD.replace("“Thank you”", '"Thank you"'), "not in the answer's form"),
        (GOOD.replace("phrase", "phr\\ase"), "not in the answer's form"),
        (GOOD.replace("phrase", "phr\nase"), "not in the answer's form"),
        (GOOD.replace("phrase", "{signal}"), "not in the answer's form"),
        ("This “Thank you” is gratitude.", "too short"),
        (GOOD[:-1] + ", and so on and so forth with many more words" * 5 + ".", "too long"),
        (GOOD.replace("“Thank you”", "used here"), "nothing quoted"),
        (GOOD.replace("Thank you", "thank you"), "quote not in the text"),
        (GOOD.replace("Thank you", "you so much for the long and"), "too much quoted"),
        (GOOD.replace("gratitude", "kindness"), "label not named"),
        (GOOD.replace("somebody", "gratitude and gratitude"), "label named too often"),
        (GOOD.replace("gratitude", "gratitude and to joy"), "another label concluded"),
        (GOOD.replace("phrase", "gold label"), "leaks the instruction"),
        ("I copy one or two short stretches of the text, “Thank you”, for gratitude.", "leaks the instruction"),
        (GOOD.replace("acknowledges a good turn", "is a good turn and is a good turn"), "repeats itself"),
    ],
)
def test_a_bad_chain_is_refused_for_its_reason(reasoning: str, reason: str) -> None:
    assert check(EXAMPLE, reasoning) == reason


def test_another_label_may_be_set_aside() -> None:
    assert check(EXAMPLE, GOOD.replace("to gratitude", "to gratitude more than to joy")) is None
    assert check(EXAMPLE, GOOD.replace("gratitude", "gratitude rather than joy")) is None


def test_words_of_the_text_do_not_count_as_conclusions() -> None:
    example = Example("Thank you with love and joy for the answer, my friend, truly.", ("gratitude",))
    assert check(example, GOOD.replace("Thank you", "love and joy")) is None


def test_a_text_too_short_to_quote_may_go_without() -> None:
    assert check(Example("Thanks mate", ("gratitude",)), GOOD.replace("“Thank you”", "used here")) is None


@pytest.mark.parametrize(
    ("probability", "supported"),
    [(0.2, True), (0.1, True), (0.09, True), (0.04, False)],
    ids=["probable", "at the floor", "among the first", "neither"],
)
def test_the_judge_needs_a_probability_or_a_place(probability: float, supported: bool) -> None:
    probabilities = {"gratitude": probability, "joy": 0.1, "love": 0.1, "pride": 0.06}
    judgement = Judgement(probabilities, {"gratitude": 0.06, "joy": 0.05, "love": 0.05, "pride": 0.05})
    refused = check(EXAMPLE, GOOD, judgement, floor=0.1, top=3)
    assert refused == (None if supported else DISAGREES)


def test_a_frequent_label_needs_its_base_rate() -> None:
    judgement = Judgement({"neutral": 0.2, "joy": 0.2}, {"neutral": 0.33, "joy": 0.03})
    assert not judgement.supports("neutral", floor=0.1, top=1)
    assert judgement.supports("joy", floor=0.1, top=1)


def test_wordings_and_openings_are_capped() -> None:
    cap = PhrasingCap(same_form=2, opening_share=0.03, expected=100)
    assert [cap.check(f"The “{word}” is kind.") for word in "abc"] == [None, None, "same wording too often"]
    openings = [cap.check(f"One two three four five {word * 4}.") for word in "abcd"]
    assert openings == [None, None, None, "same opening too often"]


def test_wordings_that_differ_in_small_words_and_order_are_the_same() -> None:
    cap = PhrasingCap(same_form=1, opening_share=1.0, expected=100)
    assert cap.check("With “this” the author gives thanks, which is gratitude.") is None
    assert cap.check("The author gives thanks with “that”. It is gratitude.") is None  # "which" is gone
    assert cap.check("Gratitude: with “those”, the author gives thanks.") == "same wording too often"


def test_the_opening_is_five_words_without_case() -> None:
    assert five_words("The Word “So proud” is here.") == "the word “so proud” is"
