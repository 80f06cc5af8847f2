"""The gate refuses each kind of bad chain for its own reason."""

from __future__ import annotations

import pytest

from toolkit.contract.example import Example
from toolkit.corpora.gate import Judgement, PhrasingCap, check, five_words

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
        (GOOD.replace("Thank you", "tient ans"), "quote tears a word"),
        (GOOD.replace("Thank you", "o"), "quote tears a word"),
        (GOOD.replace("Thank you", "you"), "quote says nothing"),
        (GOOD.replace("Thank you", ","), "quote says nothing"),
        (GOOD.replace("phrase", "line 'so much for the long and patient answer' with"), "copied without quotes"),
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


DENIALS = [
    "The phrase “Thank you” acknowledges what somebody has done for another, which is not gratitude.",
    "The phrase “Thank you” answers somebody who has done a good turn with boredom rather than gratitude.",
    "The phrase “Thank you” acknowledges what somebody has done, which isn't gratitude but happiness.",
    "The phrase “Thank you” is habit, so nobody should read any gratitude into the remark at all.",
    "The phrase “Thank you” acknowledges a good turn, a sign of happiness, though some gratitude.",
    "The phrase “Thank you” is what one says to a stranger without gratitude or any other warmth.",
    "The phrase “Thank you” is said through the teeth and cannot be called a sign of gratitude.",
    "The phrase “Thank you” is mockery of a friend who let them down and anything but gratitude.",
]
ASIDE = [
    "than joy",
    "not joy",
    "without any joy",
    "hardly joy",
    "no sign of joy",
    "and isn't joy",
    "and nothing to fear",
]
EMPHASIS = [
    "not only gratitude but warmth",
    "not just gratitude but warmth",
    "nothing but gratitude",
    "nothing less than gratitude",
    "none other than gratitude",
    "a word said not without gratitude",
    "no small gratitude",
    "no polite phrase but gratitude",
    "the gratitude, not joy, of a friend",
    "not joy but gratitude",
    "no joy, and yet gratitude",
]


@pytest.mark.parametrize("reasoning", DENIALS)
def test_a_chain_that_denies_its_label_is_refused(reasoning: str) -> None:
    assert check(EXAMPLE, reasoning) == "argued label set aside"


@pytest.mark.parametrize("aside", ASIDE)
def test_another_label_may_be_denied(aside: str) -> None:
    assert check(EXAMPLE, GOOD.replace("gratitude", f"gratitude, {aside}")) is None


@pytest.mark.parametrize("emphasis", EMPHASIS)
def test_a_label_may_be_stressed_by_a_negation(emphasis: str) -> None:
    assert check(EXAMPLE, GOOD.replace("gratitude", emphasis)) is None


@pytest.mark.parametrize("emphasis", ["other than joy", "nothing less than joy"])
def test_another_label_may_not_be_stressed_by_a_negation(emphasis: str) -> None:
    assert check(EXAMPLE, GOOD.replace("gratitude", f"gratitude, and {emphasis}")) == "another label concluded"


def test_a_label_denied_once_and_argued_for_once_passes() -> None:
    assert check(EXAMPLE, GOOD.replace("somebody", "somebody with no gratitude")) is None


QUOTED = Example("THIS well-known dog's mine 😂, thank him! And 'sit', oh sit, for you.", ("joy",))


@pytest.mark.parametrize("quote", ["THIS", "dog", "dog's mine", "well-known", "😂", "sit", "thank him!", "'sit'"])
def test_whole_words_and_whatever_has_weight_may_be_quoted(quote: str) -> None:
    assert check(QUOTED, f"With “{quote}” the author is pleased at the sight of an animal, which is joy.") is None


@pytest.mark.parametrize("quote", ["HIS", "og's", "mi", "hank", "kno", "s mine"])
def test_no_word_is_torn(quote: str) -> None:
    reasoning = f"With “{quote}” the author is pleased at the sight of an animal, which is joy."
    assert check(QUOTED, reasoning) == "quote tears a word"


def test_seven_words_in_a_row_may_be_repeated() -> None:
    assert check(EXAMPLE, GOOD.replace("The phrase", "The long and patient answer, my friend,")) is None


def test_the_whole_of_a_short_text_is_not_copied_either() -> None:
    example = Example("So glad you came, Anna.", ("joy",))
    chain = "The words “So glad” are warm, and with 'so glad you came, Anna' the day begins in joy."
    assert check(example, chain) == "copied without quotes"
    assert check(example, chain.replace("glad you came, Anna", "glad you came")) is None
    chain = "With “😂” alone the author laughs until no word is left, a sign of pure amusement."
    assert check(Example("😂 😂 lol", ("amusement",)), chain) is None
    assert check(Example("😂 😂 😂", ("amusement",)), chain) is None


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
    assert refused == (None if supported else "argues for another label")


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
