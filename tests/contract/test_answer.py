"""The JSON contract: what is written, what counts as evidence, and that schema and grammar agree."""

import json

import jsonschema
import pytest

from toolkit.contract.answer import count_words, find_evidence, gbnf, json_schema, quoted_spans, render_answer
from toolkit.contract.lens import Lens


def test_an_answer_is_json_that_its_schema_accepts() -> None:
    answer = json.loads(render_answer("joy", "Saying “so glad” tells of joy."))
    assert answer == {"emotion": "joy", "reasoning": "Saying “so glad” tells of joy."}
    jsonschema.validate(answer, json_schema(Lens.AUTHOR))
    jsonschema.validate(json.loads(render_answer("sad", None)), json_schema(Lens.READER, with_reasoning=False))


@pytest.mark.parametrize(
    "answer",
    [
        {"emotion": "happiness", "reasoning": "No such label."},
        {"emotion": "joy"},
        {"emotion": "joy", "reasoning": ""},
        {"emotion": "joy", "reasoning": "lower case"},
        {"emotion": "joy", "reasoning": 'A "straight" quote.'},
        {"emotion": "joy", "reasoning": "A" + "a" * 400},
        {"emotion": "joy", "reasoning": "Fine.", "more": 1},
    ],
)
def test_the_schema_refuses(answer: dict[str, str]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, json_schema(Lens.AUTHOR))


def test_evidence_is_exact_whole_and_bounded() -> None:
    text = "I feel disappointed and ignored by my own team today"  # ten words, so four may be quoted
    assert find_evidence(text, "He says “disappointed” and “ignored”.") == ("disappointed", "ignored")
    assert find_evidence(text, "He says “Disappointed” or “upset”.") == ()
    assert find_evidence(text, "“ignored” twice, “ignored”.") == ("ignored",)
    assert find_evidence(text, "“I feel disappointed and ignored” is too much, “team” is not.") == ("team",)
    assert find_evidence(text, None) == ()
    assert find_evidence("So sad", "“sad” would be half of the words.") == ()


def test_quotes_and_words_are_counted_as_documented() -> None:
    assert quoted_spans("One “a b”, two “c”, an open “d") == ["a b", "c"]
    assert count_words("don't  stop\nnow") == 3


@pytest.mark.parametrize("lens", list(Lens))
@pytest.mark.parametrize("with_reasoning", [True, False])
def test_llama_cpp_accepts_the_grammar(lens: Lens, with_reasoning: bool) -> None:
    from llama_cpp import LlamaGrammar

    source = gbnf(lens, with_reasoning)
    assert LlamaGrammar.from_string(source, verbose=False) is not None
    assert ("reasoning" in source) == with_reasoning
