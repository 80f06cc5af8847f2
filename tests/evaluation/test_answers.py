"""Which answers keep the contract, and which quotes stand in the text."""

from __future__ import annotations

import json

import jsonschema
import pytest

from toolkit.contract.answer import json_schema, render_answer
from toolkit.contract.lens import Lens
from toolkit.evaluation.answers import parse_answer, rate_answers

SCHEMA = json_schema(Lens.AUTHOR)
GOOD = '{"emotion": "joy", "reasoning": "They say “yes”."}'
BAD = {
    "no JSON": "joy",
    "cut off": '{"emotion": "joy", "reasoning": "They',
    "a list": '["joy"]',
    "a list of pairs": '[["emotion", "joy"], ["reasoning", "Yes."]]',
    "a string": '"joy"',
    "null": "null",
    "no reasoning": '{"emotion": "joy"}',
    "another key": '{"emotion": "joy", "reasoning": "Yes.", "confidence": "1"}',
    "unknown label": '{"emotion": "happy", "reasoning": "Yes."}',
    "no string": '{"emotion": "joy", "reasoning": 5}',
    "nested": '{"emotion": "joy", "reasoning": {"a": "Yes."}}',
    "empty": '{"emotion": "joy", "reasoning": ""}',
    "small letter": '{"emotion": "joy", "reasoning": "yes."}',
    "too long": '{"emotion": "joy", "reasoning": "Y' + "e" * 2000 + '"}',
    "control character": '{"emotion": "joy", "reasoning": "Yes\\u0007."}',
    "line feed at the end": '{"emotion": "joy", "reasoning": "Yes.\\n"}',
    "escaped mark": '{"emotion": "joy", "reasoning": "Yes \\"no\\"."}',
    "text after it": GOOD + " and more",
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_answer_is_refused(name: str) -> None:
    assert parse_answer(BAD[name], SCHEMA) is None


def test_a_repeated_key_is_refused() -> None:
    assert parse_answer('{"emotion": "joy", "emotion": "anger", "reasoning": "Yes."}', SCHEMA) is None
    assert parse_answer('{"emotion": "joy", "emotion": "joy"}', SCHEMA) is None


def test_what_the_contract_renders_is_valid() -> None:
    assert parse_answer(GOOD, SCHEMA) == {"emotion": "joy", "reasoning": "They say “yes”."}
    assert parse_answer(render_answer("grief", "It’s over."), SCHEMA) is not None
    assert parse_answer(render_answer("grief", None), json_schema(Lens.AUTHOR, with_reasoning=False)) is not None


def test_the_schema_library_agrees() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for name, raw in BAD.items():
        try:
            value = json.loads(raw)
        except ValueError:
            continue
        if name != "line feed at the end":  # the library takes $ as Python does, which lets a last line feed pass
            assert not validator.is_valid(value), name
    assert validator.is_valid(json.loads(GOOD))


def test_rates_are_shares_of_answers_and_of_spans() -> None:
    answers = [
        (render_answer("joy", "They say “so glad” and “today”."), "I am so glad today"),
        (render_answer("joy", "They say “Glad”, which is good."), "I am so glad today"),
        (render_answer("neutral", "They say “nothing” of feeling."), "It says nothing"),
        (render_answer("neutral", "Nothing in it stirs a feeling."), "The bus is here"),
        ("broken", "The bus is here"),
    ]
    found = rate_answers(answers, Lens.AUTHOR)
    assert found.valid == pytest.approx(4 / 5)
    assert found.quoted == pytest.approx(3 / 4)
    assert found.with_quote == pytest.approx(3 / 5)
    assert found.openings == 4


def test_no_quotes_have_no_rate() -> None:
    assert rate_answers([(render_answer("joy", "Yes."), "x")], Lens.AUTHOR).quoted is None
