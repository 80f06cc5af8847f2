"""What the model that ships writes about the 200 golden texts: its form, its variety, and whether it is true."""

from __future__ import annotations

import pytest

from toolkit import EmotionModel
from toolkit.assets import asset
from toolkit.evaluation.answers import AnswerRates
from toolkit.evaluation.evaluate import Judged, judge, read
from toolkit.evaluation.faithfulness import ReasoningQuality
from toolkit.evaluation.protocols import load_rows


@pytest.fixture(scope="module")
def judged(default_model: EmotionModel) -> Judged:
    rows = load_rows(str(asset("data", "samples", "golden.jsonl")))
    return judge(default_model, rows, read(default_model, rows))


@pytest.fixture(scope="module")
def written(judged: Judged) -> AnswerRates:
    assert judged.answers is not None
    return judged.answers


@pytest.fixture(scope="module")
def quality(judged: Judged) -> ReasoningQuality:
    assert judged.evaluation.reasoning_quality is not None
    return judged.evaluation.reasoning_quality


def test_every_answer_keeps_the_contract(written: AnswerRates) -> None:
    assert written.valid == 1.0
    assert written.quoted is not None
    assert written.quoted >= 0.97


# Floors and ceilings, a little aside of what was measured with the model that ships; that stands behind each.


def test_reasoning_is_varied(written: AnswerRates) -> None:
    assert written.with_quote >= 0.9  # 0.995
    assert written.copied <= 0.02  # 0.000
    assert written.repeating <= 0.05  # 0.000
    assert written.distinct_2 >= 0.42  # 0.486
    assert written.openings >= 170  # 194


def test_reasoning_argues_for_the_label_that_was_given(quality: ReasoningQuality) -> None:
    assert quality.answers == 200
    assert quality.judge_accuracy is not None
    assert quality.judge_accuracy >= 0.95  # 1.000
    assert quality.argued is not None
    assert quality.argued >= 0.95  # 0.995


def test_the_label_rests_on_the_quoted_words_more_than_on_others(quality: ReasoningQuality) -> None:
    erasure = quality.erasure
    assert erasure is not None
    assert erasure.texts >= 150  # 199
    assert erasure.comprehensiveness_gain[0] > 0  # 0.047
    assert erasure.comprehensiveness >= 2 * erasure.random_comprehensiveness  # 0.146 and 0.071
    assert erasure.sufficiency_gain[0] > 0  # 0.059
