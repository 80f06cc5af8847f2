"""The clean rows in two parts: stratified, the same by the same seed, and no text in both."""

from __future__ import annotations

from collections import Counter

from toolkit.contract.example import Example
from toolkit.corpora.split import SplitConfig, split


def rows(label: str, count: int) -> list[Example]:
    return [Example(f"{label} text {number}", (label,), id=f"{label}{number}") for number in range(count)]


EXAMPLES = [*rows("joy", 50), *rows("grief", 10), *rows("neutral", 4)]


def test_each_label_gives_its_share_and_no_row_is_lost() -> None:
    train, val = split(EXAMPLES, SplitConfig(val_share=0.2))
    assert Counter(e.labels[0] for e in val) == {"joy": 10, "grief": 2, "neutral": 1}
    assert sorted(e.id for e in [*train, *val]) == sorted(e.id for e in EXAMPLES)
    assert [e.id for e in train] == [e.id for e in EXAMPLES if e in train]


def test_the_seed_chooses_and_the_order_of_the_rows_does_not() -> None:
    _, val = split(EXAMPLES, SplitConfig())
    assert {e.id for e in split(EXAMPLES[::-1], SplitConfig())[1]} == {e.id for e in val}
    assert {e.id for e in split(EXAMPLES, SplitConfig(seed=1))[1]} != {e.id for e in val}
    assert split(EXAMPLES, SplitConfig(val_share=0.0)) == (EXAMPLES, [])


def test_a_text_with_several_labels_counts_for_the_rarest() -> None:
    both = [Example(f"both {n}", ("grief", "joy"), id=f"b{n}") for n in range(10)]
    _, val = split([*rows("joy", 50), *both], SplitConfig(val_share=0.2))
    assert sum(e.labels == ("grief", "joy") for e in val) == 2


def test_copies_of_a_text_go_together() -> None:
    copies = [Example(e.text.upper() + " ", ("love",), id=e.id + "copy") for e in EXAMPLES]
    train, val = split([*EXAMPLES, *copies], SplitConfig(val_share=0.3))
    assert val
    assert not {" ".join(e.text.lower().split()) for e in train} & {" ".join(e.text.lower().split()) for e in val}
