"""The samples that ship: whole, balanced, varied, exact in what they quote, and apart from the texts that evaluate."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

import pytest

from toolkit.assets import asset
from toolkit.contract.answer import find_evidence, quoted_spans
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.agreement import read_votes
from toolkit.corpora.gate import check
from toolkit.corpora.spans import word_lists, words_of
from toolkit.evaluation.identity import fill, load_terms

KEYS = {"id", "text", "emotion", "reasoning", "reader_emotion", "reader_reasoning"}
REASONINGS = ("reasoning", "reader_reasoning")
Row = dict[str, str]


def read(name: str) -> list[Row]:
    lines = asset("data", "samples", name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


REASONED = ("tiny_debug_1k.jsonl", "situations_2k.jsonl")
LABELLED = (
    "situations_20k.jsonl",
    "situations_13k.jsonl",
    "situations_14k.jsonl",
    "situations_5k.jsonl",
    "contrasts_13k.jsonl",
    "contrasts_28k.jsonl",
    "irony.jsonl",
)
PERSONS = ("persons.jsonl", "persons_4k.jsonl")
GOLDEN = "golden.jsonl"
HARD = (GOLDEN, "bench_300.jsonl")
HELD_OUT = (*HARD, "situations_dev.jsonl")
ARGUED = [*((name, key) for name in REASONED for key in REASONINGS), (GOLDEN, "reasoning")]
KINDS = {"situation": 50, "negation": 25, "mixed": 20, "idiom": 20, "sarcasm": 20, "direct": 20, "understatement": 5}


@pytest.fixture(scope="module", params=REASONED)
def reasoned(request: pytest.FixtureRequest) -> list[Row]:
    """Each of the files whose texts come with reasoning."""
    return read(request.param)


@pytest.fixture(scope="module", params=REASONED + LABELLED)
def samples(request: pytest.FixtureRequest) -> list[Row]:
    """Each of the files that may be learned from through both lenses."""
    return read(request.param)


@pytest.fixture(scope="module", params=(*REASONED, *LABELLED, *PERSONS))
def learned(request: pytest.FixtureRequest) -> list[Row]:
    """Each of the files that may be learned from, those without a reader's label too."""
    return read(request.param)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"['’]", "", text.lower()))


def most_frequent_run(texts: Iterable[str]) -> tuple[str, int]:
    """The run of five words that stands in most texts, and in how many."""
    seen: Counter[str] = Counter()
    for text in texts:
        forms = words(text)
        seen.update({" ".join(forms[i : i + 5]) for i in range(len(forms) - 4)})
    return seen.most_common(1)[0]


def test_there_are_a_thousand_texts_to_try_things_on() -> None:
    assert len(read("tiny_debug_1k.jsonl")) == 1000


def test_every_text_and_id_is_its_own_and_has_all_keys(samples: list[Row]) -> None:
    assert len({row["id"] for row in samples}) == len(samples)
    assert len({" ".join(words(row["text"])) or row["text"] for row in samples}) == len(samples)
    keys = KEYS if REASONINGS[0] in samples[0] else KEYS - set(REASONINGS)
    assert all(set(row) == keys and all(row.values()) for row in samples)


def test_the_golden_texts_are_whole_and_of_every_kind_and_label() -> None:
    rows = read(GOLDEN)
    assert len({row["id"] for row in rows}) == len({" ".join(words(row["text"])) for row in rows}) == len(rows) == 200
    keys = KEYS - {"reader_reasoning"} | {"kind"}
    assert all(set(row) == keys and all(row.values()) for row in rows)
    kinds, authors, readers = (Counter(row[key] for row in rows) for key in ("kind", "emotion", "reader_emotion"))
    assert set(kinds) == set(KINDS)
    assert not [kind for kind, floor in KINDS.items() if kinds[kind] < floor]
    assert set(authors) == set(load_taxonomy("goemotions").labels)
    assert set(readers) == set(load_taxonomy("empathetic").labels)
    assert min(authors.values()) >= 7
    assert min(readers.values()) >= 4


@pytest.mark.parametrize(("name", "floor"), [("tiny_debug_1k.jsonl", 300), (GOLDEN, 60)])
def test_many_texts_hold_a_negation(name: str, floor: int) -> None:
    negations = word_lists().negations
    assert sum(any(word.form in negations for word in words_of(row["text"])) for row in read(name)) >= floor


@pytest.mark.parametrize(("key", "taxonomy"), [("emotion", "goemotions"), ("reader_emotion", "empathetic")])
def test_every_label_stands_there_at_least_twenty_times(reasoned: list[Row], key: str, taxonomy: str) -> None:
    counts = Counter(row[key] for row in reasoned)
    assert set(counts) == set(load_taxonomy(taxonomy).labels)
    assert min(counts.values()) >= 20


@pytest.mark.parametrize("name", LABELLED)
def test_no_label_is_missing_among_the_texts_without_reasoning(name: str) -> None:
    rows = read(name)
    authors, readers = (Counter(row[key] for row in rows) for key in ("emotion", "reader_emotion"))
    assert set(authors) == set(load_taxonomy("goemotions").labels)
    assert set(readers) == set(load_taxonomy("empathetic").labels)
    assert min(authors.values()) >= len(rows) / 40  # evenly spread over the author's 28 labels
    assert min(readers.values()) >= 10


@pytest.mark.parametrize(("name", "key"), ARGUED)
def test_every_quotation_is_exact_and_within_the_share(name: str, key: str) -> None:
    for row in read(name):
        quotes = list(dict.fromkeys(quoted_spans(row[key])))
        assert quotes, row["id"]
        assert list(find_evidence(row["text"], row[key])) == quotes, row["id"]


@pytest.mark.parametrize("name", [*REASONED, *LABELLED, GOLDEN])
def test_no_five_words_recur_in_many_texts(name: str) -> None:
    rows = read(name)
    run, count = most_frequent_run(row["text"] for row in rows)
    assert count <= len(rows) / 100, run


@pytest.mark.parametrize(("name", "key"), ARGUED)
def test_no_five_words_recur_in_many_reasonings(name: str, key: str) -> None:
    rows = read(name)
    run, count = most_frequent_run(row[key] for row in rows)
    assert count <= len(rows) / 50, run


@pytest.mark.parametrize(
    ("name", "count", "labels", "least"),
    [("situations_reasoned.jsonl", 4800, 28, 90), ("situations_quoted.jsonl", 2511, 26, 38)],
)
def test_reasonings_written_later_fit_their_texts(name: str, count: int, labels: int, least: int) -> None:
    texts = {row["id"]: row for row in read("situations_20k.jsonl")}
    rows = read(name)
    assert len({row["id"] for row in rows}) == len(rows) == count
    for row in rows:
        assert set(row) == {"id", "text", "emotion", "reasoning"}
        assert all(row[key] == texts[row["id"]][key] for key in ("text", "emotion"))
        assert check(Example(row["text"], (row["emotion"],)), row["reasoning"]) is None, row["id"]
    counts = Counter(row["emotion"] for row in rows)
    assert len(counts) == labels
    assert min(counts.values()) >= least
    run, often = most_frequent_run(row["reasoning"] for row in rows)
    assert often <= len(rows) / 50, run


def test_the_same_words_are_quoted_in_the_words_of_the_template_teacher() -> None:
    by_hand = {row["id"]: row for row in read("situations_quoted.jsonl")}
    rows = read("situations_argued.jsonl")
    assert {row["id"] for row in rows} == set(by_hand)
    assert len(rows) == len(by_hand)
    for row in rows:
        other = by_hand[row["id"]]
        assert {**row, "reasoning": ""} == {**other, "reasoning": ""}
        assert quoted_spans(row["reasoning"]) == quoted_spans(other["reasoning"])
        assert check(Example(row["text"], (row["emotion"],)), row["reasoning"]) is None, row["id"]


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_text_and_no_id_is_also_one_of_those_that_evaluate(learned: list[Row], name: str) -> None:
    held_out = read(name)
    assert not {row["id"] for row in learned} & {row["id"] for row in held_out}
    assert not {" ".join(words(r["text"])) for r in learned} & {" ".join(words(r["text"])) for r in held_out}


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_configuration_names_a_file_that_is_held_out(name: str) -> None:
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for folder in ("data", "models")
        for path in asset(folder, "configs").rglob("*.yaml")
    }
    assert {"goemotions.yaml", "own-texts.yaml"} <= set(texts)
    assert not [file for file, text in texts.items() if name in text]


@pytest.mark.parametrize("name", HARD)
def test_texts_that_train_and_texts_that_evaluate_share_hardly_any_words_in_a_row(
    learned: list[Row], name: str
) -> None:
    def runs(rows: list[Row]) -> set[tuple[str, ...]]:
        split = [words(row["text"]) for row in rows]
        return {tuple(forms[i : i + 7]) for forms in split for i in range(len(forms) - 6)}

    assert not runs(learned) & runs(read(name))


def test_no_text_stands_in_two_files() -> None:
    every = [
        " ".join(words(row["text"])) or row["text"]
        for name in (*REASONED, *LABELLED, *PERSONS, *HELD_OUT)
        for row in read(name)
    ]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", PERSONS)
def test_sentences_about_persons_are_none_of_those_that_measure_what_naming_a_person_does(name: str) -> None:
    """They share no five words in a row with them, whoever is named, and each person stands in texts of many labels."""
    rows, terms = read(name), load_terms()
    assert all(set(row) == {"id", "text", "emotion"} and all(row.values()) for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["emotion"] for row in rows} == set(load_taxonomy("goemotions").labels)

    def runs(text: str) -> set[tuple[str, ...]]:
        forms = words(text)
        return {tuple(forms[i : i + 5]) for i in range(len(forms) - 4)}

    held_out = set[tuple[str, ...]]().union(*(runs(fill(template, "a person")) for template in terms.templates))
    named: dict[str, set[str]] = {}
    for row in rows:
        plain = f" {' '.join(words(row['text']))} "
        for term in sorted((t for group in terms.groups.values() for t in group), key=len, reverse=True):
            bare = " ".join(words(term)[1:])
            if f" {bare} " in plain:
                named.setdefault(term, set()).add(row["emotion"])
                plain = plain.replace(f" {bare} ", " person ")
        assert not runs(plain) & held_out, row["text"]
    assert set(named) == {term for group in terms.groups.values() for term in group}
    assert min(map(len, named.values())) > 5


def test_votes_are_ten_for_each_of_their_texts_and_mostly_for_its_label() -> None:
    votes = read_votes(asset("data", "samples", "votes.tsv"))
    names = ("situations_13k.jsonl", "situations_14k.jsonl", "contrasts_28k.jsonl")
    labels = {row["id"]: row["emotion"] for name in names for row in read(name)}
    assert len(votes) == 47_799
    assert set(votes) <= set(labels)
    assert all(agreement.raters == 10 for agreement in votes.values())
    assert sum(max(a.votes, key=a.votes.__getitem__) == labels[name] for name, a in votes.items()) >= 0.95 * len(votes)


def test_the_page_on_the_samples_names_every_file_with_its_texts_and_every_key_and_kind() -> None:
    page = asset("data", "samples", "README.md").read_text(encoding="utf-8")
    told = {
        name: int(count.replace(",", "")) for name, count in re.findall(r"^\| `(\w+\.jsonl)` \| ([\d,]+) ", page, re.M)
    }
    assert told == {path.name: len(read(path.name)) for path in asset("data", "samples").glob("*.jsonl")}
    keys = KEYS | {"kind"}
    assert set(re.findall(r"^\| `(\w+)` ", page, re.M)) == keys
    assert not [name for name in KINDS if f"`{name}`" not in page]


def test_registers_and_lengths_vary(reasoned: list[Row]) -> None:
    short, _, long = deciles(reasoned)
    assert short <= 10 <= 20 <= long


@pytest.mark.parametrize("name", LABELLED)
def test_lengths_vary_among_the_texts_without_reasoning(name: str) -> None:
    short, middle, long = deciles(read(name))
    assert short <= 15 <= middle <= 25 <= long


def deciles(rows: list[Row]) -> tuple[int, int, int]:
    """Words that a tenth, half and nine tenths of the texts have at most."""
    lengths = sorted(len(row["text"].split()) for row in rows)
    return lengths[len(rows) // 10], lengths[len(rows) // 2], lengths[len(rows) * 9 // 10]
