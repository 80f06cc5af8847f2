"""The template teacher writes valid, varied, deterministic reasonings, and its knowledge covers every label."""

from __future__ import annotations

import re

import pytest

from toolkit.contract.answer import count_words, find_evidence, quoted_spans
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.gate import check, outside_quotes
from toolkit.corpora.knowledge import load_appraisals, load_frames
from toolkit.corpora.lexicon import Lexicon
from toolkit.corpora.teacher import TemplateTeacher

LENSES = [Lens.AUTHOR, Lens.READER]
SLOTS = {"q", "q2", "signal", "stance", "case", "noun", "adj", "who", "end", "rival", "Who", "Case", "Noun"}
PERSON = re.compile(r"\{(?:them|their|they)(?: [\w']+/[\w']+)?\}")


@pytest.fixture(scope="module")
def teacher(lexicon: Lexicon) -> TemplateTeacher:
    return TemplateTeacher(lexicon, seed=3)


@pytest.mark.parametrize("lens", LENSES)
def test_every_label_has_its_appraisals(lens: Lens) -> None:
    knowledge = load_appraisals(lens)
    assert tuple(sorted(knowledge)) == tuple(sorted(load_taxonomy(lens.native).labels))
    for appraisal in knowledge.values():
        assert len({*appraisal.signals, *appraisal.stances, *appraisal.cases}) >= 9, appraisal.label


@pytest.mark.parametrize("lens", LENSES)
def test_no_sentence_names_a_label_or_breaks_the_form(lens: Lens) -> None:
    knowledge = load_appraisals(lens)
    names = re.compile(rf"\b(?:{'|'.join(n for a in knowledge.values() for n in a.names)})\b", re.IGNORECASE)
    for appraisal in knowledge.values():
        cues = [s for cue in appraisal.cues for s in (*cue.signals, *cue.stances)]
        for sentence in (*appraisal.signals, *appraisal.stances, *appraisal.cases, *cues):
            assert not names.search(sentence), f"{appraisal.label}: {sentence}"
            assert not re.search(r'["“”\\{}.]', PERSON.sub("", sentence)), sentence
            assert sentence[0].islower() or sentence[0] == "{", sentence


def test_frames_use_known_slots_and_name_the_label_once() -> None:
    frames = load_frames()
    groups = [*frames.groups.items(), *frames.plain_groups.items()]
    for group, forms in groups:
        for form in forms:
            slots = re.findall(r"\{(\w+)\}", form)
            assert set(slots) <= SLOTS, form
            assert form.endswith("."), form
            assert ("q" in slots) is (group != "none"), form
            assert ("q2" in slots) is (group == "two"), form
    for end in (*frames.ends, *frames.contrasts, *frames.plain_ends):
        assert len(re.findall(r"\{(?:noun|adj)\}|neutral", end)) == 1, end


def test_the_frames_offer_hundreds_of_forms() -> None:
    frames = load_frames()
    assert sum(map(len, frames.groups.values())) * len(frames.ends) > 1000


def test_chains_pass_the_gate(teacher: TemplateTeacher, corpus: list[Example]) -> None:
    for example in corpus:
        reasoning = teacher.write(example)
        assert reasoning is not None
        assert check(example, reasoning) is None, reasoning
        assert len(find_evidence(example.text, reasoning)) == len(quoted_spans(reasoning)) >= 1
        assert 12 <= count_words(reasoning) <= 40


def test_the_same_seed_gives_the_same_chain(lexicon: Lexicon, corpus: list[Example]) -> None:
    first, second = TemplateTeacher(lexicon, 5), TemplateTeacher(lexicon, 5)
    forwards = [first.write(e) for e in corpus]
    backwards = [second.write(e) for e in reversed(corpus)][::-1]
    assert forwards == backwards
    assert forwards != [TemplateTeacher(lexicon, 6).write(e) for e in corpus]


def test_attempts_differ(teacher: TemplateTeacher, corpus: list[Example]) -> None:
    assert len({teacher.write(corpus[0], attempt) for attempt in range(20)}) > 15


def test_a_text_of_two_words_is_argued_without_a_quote(teacher: TemplateTeacher) -> None:
    example = Example("Thanks mate", ("gratitude",))
    reasoning = teacher.write(example)
    assert reasoning is not None
    assert not quoted_spans(reasoning)
    assert check(example, reasoning) is None


def test_a_negation_stays_with_its_verb(teacher: TemplateTeacher) -> None:
    example = Example("Well, I don’t like the colour of that old fence over there.", ("disapproval",))
    for attempt in range(10):
        assert "“don’t like" in (teacher.write(example, attempt) or "").replace("“I don’t", "“don’t")


def test_a_rival_is_only_set_aside(teacher: TemplateTeacher) -> None:
    example = Example("I hate the noise of the bins here.", ("anger",))
    written = [teacher.write(example, attempt, "annoyance") or "" for attempt in range(40)]
    contrasts = [w for w in written if "annoyance" in outside_quotes(w)]
    assert contrasts
    assert all(check(example, w) is None for w in written)


@pytest.mark.parametrize("text", ["", "😂", "[NAME]", "a b c", 'He said "no" to\nit all \\ again', "x" * 5000])
def test_any_text_gives_a_chain_without_forbidden_characters(teacher: TemplateTeacher, text: str) -> None:
    for label in load_taxonomy("goemotions").labels:
        reasoning = teacher.write(Example(text, (label,)))
        assert reasoning is not None
        assert not re.search(r'["\\\x00-\x1f{}]', reasoning)
        assert reasoning[0].isupper()
        assert reasoning.endswith(".")
