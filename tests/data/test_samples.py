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
from toolkit.corpora.gate import check

KEYS = {"id", "text", "emotion", "reasoning", "reader_emotion", "reader_reasoning"}
REASONINGS = ("reasoning", "reader_reasoning")
Row = dict[str, str]


def read(name: str) -> list[Row]:
    lines = asset("data", "samples", name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


REASONED = ("tiny_debug_1k.jsonl", "situations_2k.jsonl")
LABELLED = ("situations_20k.jsonl", "situations_13k.jsonl", "situations_5k.jsonl", "irony.jsonl")


@pytest.fixture(scope="module", params=REASONED)
def reasoned(request: pytest.FixtureRequest) -> list[Row]:
    """Each of the files whose texts come with reasoning."""
    return read(request.param)


@pytest.fixture(scope="module", params=REASONED + LABELLED)
def samples(request: pytest.FixtureRequest) -> list[Row]:
    """Each of the files that may be learned from."""
    return read(request.param)


@pytest.fixture(scope="module")
def held_out() -> list[Row]:
    return read("golden.jsonl") + read("bench_300.jsonl")


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


@pytest.mark.parametrize("key", REASONINGS)
def test_every_quotation_is_exact_and_within_the_share(reasoned: list[Row], key: str) -> None:
    for row in reasoned:
        quotes = list(dict.fromkeys(quoted_spans(row[key])))
        assert quotes, row["id"]
        assert list(find_evidence(row["text"], row[key])) == quotes, row["id"]


def test_no_five_words_recur_in_many_texts(samples: list[Row]) -> None:
    run, count = most_frequent_run(row["text"] for row in samples)
    assert count <= len(samples) / 100, run


@pytest.mark.parametrize("key", REASONINGS)
def test_no_five_words_recur_in_many_reasonings(reasoned: list[Row], key: str) -> None:
    run, count = most_frequent_run(row[key] for row in reasoned)
    assert count <= len(reasoned) / 50, run


def test_reasonings_written_later_fit_their_texts() -> None:
    texts = {row["id"]: row for row in read("situations_20k.jsonl")}
    rows = read("situations_reasoned.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == 4800
    for row in rows:
        assert set(row) == {"id", "text", "emotion", "reasoning"}
        assert all(row[key] == texts[row["id"]][key] for key in ("text", "emotion"))
        assert check(Example(row["text"], (row["emotion"],)), row["reasoning"]) is None, row["id"]
    assert min(Counter(row["emotion"] for row in rows).values()) >= 90
    run, count = most_frequent_run(row["reasoning"] for row in rows)
    assert count <= len(rows) / 50, run


def test_no_text_and_no_id_is_also_one_of_those_that_evaluate(samples: list[Row], held_out: list[Row]) -> None:
    assert not {row["id"] for row in samples} & {row["id"] for row in held_out}
    assert not {" ".join(words(r["text"])) for r in samples} & {" ".join(words(r["text"])) for r in held_out}


def test_texts_that_train_and_texts_that_evaluate_share_hardly_any_words_in_a_row(
    samples: list[Row], held_out: list[Row]
) -> None:
    def runs(rows: list[Row]) -> set[tuple[str, ...]]:
        split = [words(row["text"]) for row in rows]
        return {tuple(forms[i : i + 7]) for forms in split for i in range(len(forms) - 6)}

    assert not runs(samples) & runs(held_out)


def test_no_text_stands_in_two_files() -> None:
    every = [" ".join(words(row["text"])) for name in REASONED + LABELLED for row in read(name)]
    assert len(set(every)) == len(every)


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
