"""A small labelled corpus, enough for the interpretable model to learn which words carry which label."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.lexicon import Lexicon, fit

OBJECTS = ("this song", "the new park", "her garden", "that old movie", "your kitchen", "the long road", "our team")
PATTERNS = {
    "gratitude": ("Thank you so much for {}.", "Thanks for {}, it was kind.", "I am grateful for {} today."),
    "anger": ("I fucking hate {} with a passion.", "Shut up about {}, you idiot.", "I hate everything in {} now."),
    "disapproval": ("I don't like {} at all, it is wrong.", "No, {} is a bad idea.", "They don't like {} in general."),
    "pride": ("I am so proud of {} today.", "We are proud that {} won.", "So proud to see {} again."),
    "neutral": (
        "The report covers {} and two maps.",
        "Tickets for {} cost nine dollars.",
        "They meet near {} on Monday.",
    ),
}


def small_corpus() -> list[Example]:
    """Twenty-one texts for each of five labels."""
    return [
        Example(pattern.format(thing), (label,), id=f"{label}-{i}-{j}")
        for label, patterns in PATTERNS.items()
        for i, pattern in enumerate(patterns)
        for j, thing in enumerate(OBJECTS)
    ]


@pytest.fixture(scope="session")
def corpus() -> list[Example]:
    return small_corpus()


@pytest.fixture(scope="session")
def lexicon(corpus: list[Example]) -> Lexicon:
    return fit(corpus, load_taxonomy("goemotions").labels, min_count=2)


@pytest.fixture
def source(tmp_path: Path, corpus: list[Example]) -> Path:
    """A corpora folder in the true format: train packed, dev plain, test absent."""
    folder = tmp_path / "corpora" / "goemotions"
    folder.mkdir(parents=True)
    labels = load_taxonomy("goemotions").labels
    rows = [f"{e.text}\t{','.join(str(labels.index(name)) for name in e.labels)}\t{e.id}\n" for e in corpus]
    with gzip.open(folder / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines([*rows, "[NAME] [NAME]\t27\tm1\n", f"{corpus[0].text.upper()}\t15\tcopy\n"])
    dev = ["Thank you so much for the lift home.\t15\td1\n", "We met near the bridge on Monday.\t27\td2\n"]
    (folder / "dev.tsv").write_text("".join([*dev, f"{corpus[0].text}\t15\td3\n"]), encoding="utf-8")
    return tmp_path / "corpora"
