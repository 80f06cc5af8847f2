"""The template teacher writes valid, conditioned, deterministic reasonings, and its knowledge covers every label."""

from __future__ import annotations

import re

import pytest

from toolkit.contract.answer import count_words, find_evidence, quoted_spans
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.gate import check, outside_quotes
from toolkit.corpora.knowledge import load_appraisals, load_frames
from toolkit.corpora.lexicon import Lexicon, fit
from toolkit.corpora.teacher import TemplateTeacher
from toolkit.corpora.teachers import Ask, NoAnswer

LENSES = [Lens.AUTHOR, Lens.READER]
SLOTS = {"q", "q2", "signal", "stance", "case", "noun", "adj", "who", "end", "rival", "against", "Who", "Case", "Noun"}
PERSON = re.compile(r"\{(?:them|their|they)(?: [\w']+/[\w']+)?\}")


@pytest.fixture(scope="module")
def teacher(lexicon: Lexicon) -> TemplateTeacher:
    return TemplateTeacher(lexicon)


def written(teacher: TemplateTeacher, text: str, label: str, rival: str | None = None) -> str:
    reasoning = teacher.write(Example(text, (label,)), rival=rival)
    assert reasoning is not None
    return reasoning


@pytest.mark.parametrize("lens", LENSES)
def test_every_label_has_its_appraisals(lens: Lens) -> None:
    knowledge = load_appraisals(lens)
    assert tuple(sorted(knowledge)) == tuple(sorted(load_taxonomy(lens.native).labels))
    for appraisal in knowledge.values():
        assert len({*appraisal.signals, *appraisal.stances, *appraisal.cases}) >= 9, appraisal.label
        assert len(appraisal.cues) >= 2, appraisal.label
        assert set(appraisal.against) < set(knowledge) - {appraisal.label}, appraisal.label


@pytest.mark.parametrize("lens", LENSES)
def test_no_sentence_names_a_label_or_breaks_the_form(lens: Lens) -> None:
    knowledge = load_appraisals(lens)
    names = re.compile(rf"\b(?:{'|'.join(n for a in knowledge.values() for n in a.names)})\b", re.IGNORECASE)
    for appraisal in knowledge.values():
        cues = [s for cue in appraisal.cues for s in (*cue.signals, *cue.stances)]
        own = (*appraisal.signals, *appraisal.stances, *appraisal.cases, *appraisal.against.values())
        for sentence in (*own, *cues):
            assert not names.search(sentence), f"{appraisal.label}: {sentence}"
            assert not re.search(r'["“”\\{}.]', PERSON.sub("", sentence)), sentence
            assert sentence[0].islower() or sentence[0] == "{", sentence


def test_frames_use_known_slots_and_name_the_label_once() -> None:
    frames = load_frames()
    for group, forms in [*frames.groups.items(), *frames.plain_groups.items()]:
        for form in forms:
            slots = re.findall(r"\{(\w+)\}", form)
            assert set(slots) <= SLOTS, form
            assert form.endswith("."), form
            assert ("q" in slots) is (group != "none"), form
            assert ("q2" in slots) is (group == "two"), form
    for end in (*frames.ends, *frames.contrasts, *frames.plain_ends):
        assert len(re.findall(r"\{(?:noun|adj)\}|neutral", end)) == 1, end


def test_chains_pass_the_gate(teacher: TemplateTeacher, corpus: list[Example]) -> None:
    for example in corpus:
        reasoning = teacher.write(example)
        assert reasoning is not None
        assert check(example, reasoning) is None, reasoning
        assert len(find_evidence(example.text, reasoning)) == len(quoted_spans(reasoning)) >= 1
        assert 11 <= count_words(reasoning) <= 40


@pytest.mark.parametrize("lens", LENSES)
def test_the_samples_give_hundreds_of_forms(lens: Lens) -> None:
    from toolkit.corpora.chain_texts import load_samples

    examples = list(load_samples(lens).train)
    teacher = TemplateTeacher(fit(examples, load_taxonomy(lens.native).labels))
    chains = [teacher.write(example) for example in examples]
    forms = {outside_quotes(chain) for chain in chains if chain}
    assert len(forms) > 300
    assert sum(c is not None and check(e, c) is None for e, c in zip(examples, chains, strict=True)) > 970


def test_the_wording_hangs_on_what_is_in_the_text(teacher: TemplateTeacher) -> None:
    """Another object of the same cue changes nothing but the quotation; a question mark or a negation does."""
    one = written(teacher, "They hate the long road", "anger")
    other = written(teacher, "They hate the old movie", "anger")
    assert outside_quotes(one) == outside_quotes(other)
    assert outside_quotes(written(teacher, "Do I hate this song now?", "anger")) != outside_quotes(one)
    denied = written(teacher, "Well, I don't like the colour of that old fence over there.", "disapproval")
    assert "negati" in denied.lower()
    assert "xcla" in written(teacher, "Then we hate this song so much here!", "anger")


def test_labels_have_voices_of_their_own(teacher: TemplateTeacher) -> None:
    text = "So we hate this song, and thanks for all of it."
    labels = ("anger", "annoyance", "gratitude", "joy", "pride")
    assert len({outside_quotes(written(teacher, text, label)) for label in labels}) == len(labels)


def test_the_same_example_gives_the_same_chain(lexicon: Lexicon, corpus: list[Example]) -> None:
    first, second = TemplateTeacher(lexicon), TemplateTeacher(lexicon)
    forwards = [first.write(e) for e in corpus]
    assert forwards == [second.write(e) for e in reversed(corpus)][::-1]


def test_attempts_differ(teacher: TemplateTeacher, corpus: list[Example]) -> None:
    chains = [teacher.write(corpus[0], attempt) for attempt in range(6)]
    assert None not in chains
    assert len(set(chains)) == 6


def test_a_text_of_two_words_is_argued_without_a_quote(teacher: TemplateTeacher) -> None:
    reasoning = written(teacher, "Thanks mate", "gratitude")
    assert not quoted_spans(reasoning)
    assert check(Example("Thanks mate", ("gratitude",)), reasoning) is None


def test_a_negation_stays_with_its_verb(teacher: TemplateTeacher) -> None:
    example = Example("Well, I don’t like the colour of that old fence over there.", ("disapproval",))
    for attempt in range(5):
        assert "“don’t like" in (teacher.write(example, attempt) or "").replace("“I don’t", "“don’t")


def test_no_quote_is_torn_from_its_negation(teacher: TemplateTeacher) -> None:
    """Where the negation does not fit into what may be quoted, something else is quoted."""
    for text in ("I don't like that old fence over there.", "We do not hate this song, it is fine."):
        for label in ("disapproval", "anger"):
            for span in quoted_spans(written(teacher, text, label)):
                assert not re.search("like|hate", span) or re.search("n't|not", span), span


def test_a_rival_is_set_aside_with_a_reason(teacher: TemplateTeacher) -> None:
    example = Example("I hate the noise of the bins here.", ("anger",))
    reasoning = teacher.write(example, rival="annoyance") or ""
    assert "annoyance" in outside_quotes(reasoning)
    assert load_appraisals(Lens.AUTHOR)["anger"].against["annoyance"] in reasoning
    assert check(example, reasoning) is None


def test_a_rival_that_is_not_akin_is_passed_over(teacher: TemplateTeacher) -> None:
    example = Example("I hate the noise of the bins here.", ("anger",))
    assert teacher.write(example, rival="joy") == teacher.write(example)


def test_many_are_answered_in_order(teacher: TemplateTeacher, corpus: list[Example]) -> None:
    asks = [Ask(example) for example in corpus[:5]]
    assert list(teacher.write_all(asks)) == [teacher.write(example) for example in corpus[:5]]
    assert list(teacher.write_all([Ask(corpus[0], attempt=1000)])) == [NoAnswer("no fitting form")]
    assert teacher.usage() == {}


@pytest.mark.parametrize("text", ["", "😂", "[NAME]", "a b c", 'He said "no" to\nit all \\ again', "x" * 5000])
def test_any_text_gives_a_chain_without_forbidden_characters(teacher: TemplateTeacher, text: str) -> None:
    for label in load_taxonomy("goemotions").labels:
        reasoning = written(teacher, text, label)
        assert not re.search(r'["\\\x00-\x1f{}]', reasoning)
        assert reasoning[0].isupper()
        assert reasoning.endswith(".")
