"""Whether reasoning is true: erasure by hand, words moved at random, and a judge of what is argued for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.spans import kept_words, quoted_words
from toolkit.evaluation.argued import argument_judge, fit_judge, known_chains
from toolkit.evaluation.faithfulness import Read, erase, measure_reasoning, moved
from toolkit.evaluation.metrics import Floats

LABELS = load_taxonomy("goemotions").labels
TEXT = "well I am so happy that we won the cup"


def test_words_are_found_by_the_place_of_their_span() -> None:
    assert quoted_words(TEXT, ["so happy", "cup"]).nonzero()[0].tolist() == [3, 4, 9]
    # part of a word is that word; white space of any kind parts words; the first occurrence counts
    assert quoted_words(" a-b\u2003 c,\nd c,", ["-b", "c"]).tolist() == [True, True, False, False]
    assert quoted_words("one two", []).tolist() == [False, False]
    assert kept_words(" a  b\tc ", np.array([True, False, True])) == "a c"


def test_moved_words_keep_their_runs_and_get_everywhere() -> None:
    chance = np.random.default_rng(0)
    mask = np.array([0, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    seen = np.zeros(8)
    for _ in range(400):
        found = moved(mask, chance)
        assert (found.sum(), len(found)) == (3, 8)
        runs = [len(run) for run in "".join(map(str, found.astype(int))).split("0") if run]
        assert sorted(runs) in ([1, 2], [3])  # side by side they look like one
        seen += found
    assert (seen > 60).all()


def reader(weights: dict[str, float]) -> Read:
    """From texts to posteriors: joy has the sum of its words' weights, neutral the rest."""

    def read(texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), len(LABELS)))
        found[:, LABELS.index("joy")] = [sum(weights.get(word, 0) for word in text.split()) for text in texts]
        found[:, LABELS.index("neutral")] = 1 - found[:, LABELS.index("joy")]
        return found

    return read


def test_erasure_by_hand() -> None:
    read = reader({"happy": 0.5, "won": 0.25})
    found = erase(read, [TEXT], ["They say “so happy”."], ["joy"], Lens.AUTHOR)
    assert found is not None
    # all words .75; without "so happy" .25; on "so happy" alone .5
    assert (found.texts, found.comprehensiveness, found.sufficiency) == (1, pytest.approx(0.5), pytest.approx(0.25))
    # two words in a row at random hold "happy" twice in nine, "won" likewise: .75 * 2/9 is lost on average
    many = erase(read, [TEXT] * 300, ["They say “so happy”."] * 300, ["joy"] * 300, Lens.AUTHOR)
    assert many is not None
    assert many.random_comprehensiveness == pytest.approx(0.75 * 2 / 9, abs=0.03)
    assert many.random_sufficiency == pytest.approx(0.75 - 0.75 * 2 / 9, abs=0.03)
    low, high = many.comprehensiveness_gain
    assert low < many.comprehensiveness - many.random_comprehensiveness < high
    low, high = many.sufficiency_gain
    assert low < many.random_sufficiency - many.sufficiency < high


def test_words_that_carry_nothing_are_found_out() -> None:
    found = erase(reader({"happy": 0.5}), [TEXT] * 50, ["They say “the cup”."] * 50, ["joy"] * 50, Lens.AUTHOR)
    assert found is not None
    assert found.comprehensiveness == 0
    assert found.comprehensiveness_gain[1] < 0
    assert found.sufficiency == 0.5


def test_short_texts_and_texts_without_quotations_are_left_out() -> None:
    texts = ["happy happy happy happy happy happy happy", TEXT, TEXT]  # seven words; no quotation; not in the text
    reasonings = ["They say “happy happy”.", "It shows.", "They say “so sad”."]
    assert erase(reader({}), texts, reasonings, ["joy"] * 3, Lens.AUTHOR) is None
    only = erase(reader({}), [*texts, TEXT], [*reasonings, "They say “so”."], ["joy"] * 4, Lens.AUTHOR)
    assert only is not None
    assert only.texts == 1


@pytest.mark.parametrize("lens", list(Lens))
def test_the_judge_knows_what_is_argued_for(lens: Lens) -> None:
    judge = argument_judge(lens)
    assert judge is not None
    assert judge.accuracy > 0.95  # on a fifth that it has not seen
    assert judge.chains == pytest.approx(0.8 * len(known_chains(lens)), abs=1)
    assert judge.chains > 2000


def test_the_judge_reads_the_argument_and_not_the_quotations() -> None:
    judge = argument_judge(Lens.AUTHOR)
    assert judge is not None
    argued = ["Calling it “so sad” shows pure joy over what happened.", "The words “I love it” are full of disgust."]
    assert judge.labels(argued).tolist() == ["joy", "disgust"]


@pytest.mark.parametrize("lens", list(Lens))
def test_without_the_names_of_labels_the_reasons_have_to_tell(lens: Lens) -> None:
    judge, named = argument_judge(lens, named=False), argument_judge(lens)
    assert judge is not None
    assert named is not None
    assert 0.6 < judge.accuracy < named.accuracy - 0.1  # 0.732 and 0.766, of 28 and 32 labels


def test_a_label_that_is_only_named_convinces_the_first_judge_alone() -> None:
    argued = ["Somebody did the author a good turn, and “thanks” gives credit for it, which is anger."]
    named, unnamed = (argument_judge(Lens.AUTHOR, named) for named in (True, False))
    assert named is not None
    assert unnamed is not None
    assert (named.labels(argued)[0], unnamed.labels(argued)[0]) == ("anger", "gratitude")


def test_a_judge_of_noise_says_that_it_knows_nothing() -> None:
    random = np.random.default_rng(0)
    noise = [
        (
            " ".join(random.choice(["one", "two", "three", "four", "five", "six", "seven", "eight"], 6)),
            str(random.choice(["joy", "anger"])),
        )
        for _ in range(400)
    ]
    assert fit_judge(noise).accuracy < 0.65


def test_all_of_it_together() -> None:
    answers = [
        (render_answer("joy", "Calling it “so happy” shows pure joy."), TEXT),
        (render_answer("joy", "Calling it “so happy” shows deep sadness and grief."), TEXT),
        ('{"emotion": "joy"', TEXT),
    ]
    found = measure_reasoning(reader({"happy": 0.5}), answers, Lens.AUTHOR)
    assert (found.answers, found.argued) == (2, 0.5)
    assert found.judge_accuracy is not None
    assert found.unnamed_judge_accuracy is not None
    assert found.argued_unnamed is not None
    assert found.erasure is not None
    assert (found.erasure.texts, found.erasure.comprehensiveness) == (2, 0.5)
    assert measure_reasoning(reader({"happy": 0.5}), answers, Lens.AUTHOR, most=1).argued == 1.0
    nothing = measure_reasoning(reader({}), answers[2:], Lens.AUTHOR)
    assert (nothing.answers, nothing.argued, nothing.erasure) == (0, None, None)
