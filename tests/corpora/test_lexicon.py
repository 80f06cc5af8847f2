"""The interpretable model finds the words that carry a label, as they stand in the text and at natural boundaries."""

from __future__ import annotations

from itertools import pairwise

import pytest

from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.lexicon import FoldedLexicon, Lexicon, fit
from toolkit.corpora.spans import allowance, central_span, word_lists, words_of
from toolkit.errors import DataError

LABELS = load_taxonomy("goemotions").labels


def quoted(lexicon: Lexicon, text: str, label: str) -> list[str]:
    return [span.of(text) for span in lexicon.carriers(text, label)]


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("Oh THANK YOU so much, dear!", "gratitude", "THANK YOU"),
        ("Honestly I don’t like the soup.", "disapproval", "don’t like"),
        ("Honestly I don't like the soup.", "disapproval", "don't like"),
        ("My mother is so proud, [NAME].", "pride", "so proud"),
        ("People hate the rain.", "anger", "hate"),
    ],
)
def test_the_strongest_span_keeps_case_negation_and_intensifier(
    lexicon: Lexicon, text: str, label: str, expected: str
) -> None:
    assert expected in quoted(lexicon, text, label)[0]


@pytest.mark.parametrize("label", ["gratitude", "anger", "pride", "neutral"])
@pytest.mark.parametrize(
    "text",
    [
        'He said "thanks" and so\tproud \\ hate\nthank you',
        "“Thanks” for the well-known u/proud song, 1,000 times",
        "[NAME] [NAME] so proud of [NAME]",
        "don't don’t DON'T thank",
        "thanks" * 40,
        "",
        "😂😂",
        "\u200fhate\u202e you",
    ],
)
def test_every_span_may_be_quoted(lexicon: Lexicon, text: str, label: str) -> None:
    for span in lexicon.carriers(text, label):
        words = span.of(text)
        assert words == words.strip()
        assert 1 <= len(words_of(words)) <= 4
        assert not set(words) & set('"“”\\\n\t\u200f\u202e')
        assert any(w.form not in word_lists().stop and not w.is_mask for w in words_of(words))
        assert not text[span.end : span.end + 1].isalnum()
        assert not text[max(0, span.start - 1) : span.start].isalnum()


def test_spans_do_not_overlap_and_respect_the_limit(lexicon: Lexicon) -> None:
    text = "So proud of the team, I am so proud, we are proud that it won."
    spans = sorted(lexicon.carriers(text, "pride", 2), key=lambda s: s.start)
    assert len(spans) > 1
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(count_words(s.of(text)) <= 2 for s in spans)


def test_an_unknown_label_has_no_carriers(lexicon: Lexicon) -> None:
    assert lexicon.carriers("Thank you", "no such label") == []


def test_probabilities_follow_the_words(lexicon: Lexicon) -> None:
    probabilities = lexicon.probability("Thanks for the tea.")
    assert max(probabilities, key=lambda label: probabilities[label]) == "gratitude"
    assert all(0 <= p <= 1 for p in probabilities.values())


def test_a_text_is_judged_by_a_model_that_has_not_seen_it(corpus: list[Example]) -> None:
    odd = Example("zyx zyx wvu wvu", ("pride",), id="odd")
    folded = FoldedLexicon([*corpus, odd, odd, odd], LABELS, min_count=2)
    assert fit([*corpus, odd, odd, odd], LABELS, min_count=2).carriers(odd.text, "pride")
    assert not folded.carriers(odd.text, "pride")  # copies share its fold, so none teaches the words
    index = LABELS.index("pride")
    assert folded.probabilities([odd.text])[0, index] == pytest.approx(folded.probability(odd.text)["pride"])


def test_too_few_examples_are_an_expected_failure() -> None:
    with pytest.raises(DataError, match="too few"):
        fit([Example("a b c", ("joy",))], LABELS)


@pytest.mark.parametrize(("text", "words"), [("", 0), ("One two", 0), ("One two three", 1), ("a b c d e f g h i j", 4)])
def test_the_allowance_is_two_fifths_of_the_words(text: str, words: int) -> None:
    assert allowance(text) == words


def test_the_central_span_holds_what_it_must() -> None:
    text = "It was the broken kitchen window that they saw near the harbour."
    assert text[slice(*(central_span(text, 3) or (0, 0)))] == "broken kitchen window"
    around = central_span(text, 2, text.index("harbour"))
    assert around is not None
    assert text[slice(*around)] == "harbour"
    assert central_span("to be or not", 1) is None
