"""The judge of arguments reads neither quotes nor the names of labels, and tells arguments apart by what is left."""

from __future__ import annotations

import pytest

from toolkit.contract.lens import Lens
from toolkit.corpora.argument import argument, judge_argument
from toolkit.corpora.gate import Judgement

THANKS = "The words “{quote}” acknowledge a good turn that somebody has freely done for the author, which is {label}."
BLOW = "With “{quote}” the author strikes back at whoever is to blame for a serious wrong, a sign of {label}."


def best(judgement: Judgement) -> str:
    return max(judgement.probabilities, key=lambda label: judgement.probabilities[label])


def test_quotes_and_the_names_of_labels_are_emptied() -> None:
    emptied = argument("Not Joy but grateful words, “so sad”, are loved.", Lens.AUTHOR)
    assert emptied == "Not  but  words, “”, are ."
    assert "grateful" not in argument("Proud and grateful.", Lens.READER)


@pytest.mark.parametrize("quote", ["Thank you", "I hate you"])
@pytest.mark.parametrize("label", ["gratitude", "anger", "neutral"])
def test_it_is_the_argument_that_counts(quote: str, label: str) -> None:
    assert best(judge_argument(THANKS.format(quote=quote, label=label), Lens.AUTHOR)) == "gratitude"
    assert best(judge_argument(BLOW.format(quote=quote, label=label), Lens.AUTHOR)) == "anger"


def test_the_reader_lens_has_a_judge_of_its_own() -> None:
    alone = "Nobody is there with the speaker in “an empty flat”, and company is missed, which is joyful."
    judgement = judge_argument(alone, Lens.READER)
    assert best(judgement) == "lonely"
    assert not judgement.supports("joyful", floor=0.1, top=5)
