"""Neutral texts are weighed down or capped only where the configuration asks for it."""

from __future__ import annotations

from toolkit.contract.example import Example
from toolkit.corpora.clean import CleaningReport, clean
from toolkit.corpora.neutral import NeutralConfig, cap_neutral, mostly_neutral

PLAIN = Example("It opens at nine.", ("neutral",), id="p")
HALF = Example("I agree, it opens at nine.", ("approval",), id="h", soft={"approval": 0.3, "neutral": 0.3, "joy": 0.4})
WARM = Example("Thank you!", ("gratitude",), id="w")
YES = Example("Yes.", ("approval",), id="y")


def test_by_default_nothing_is_thinned() -> None:
    kept, report = clean([PLAIN, HALF, WARM, YES], {"neutral": mostly_neutral(NeutralConfig())})
    assert cap_neutral(kept, report, NeutralConfig()) == [PLAIN, HALF, WARM, YES]


def test_mostly_and_nearly_neutral_texts_are_told_apart() -> None:
    judge = mostly_neutral(NeutralConfig(factor=0.0, near_factor=0.5))
    kept, report = clean([PLAIN, HALF, WARM, YES], {"neutral": judge})
    assert [(e.id, e.weight) for e in kept] == [("h", 0.5), ("w", 1.0), ("y", 1.0)]
    assert report.dropped == {"mostly neutral": 1}
    assert report.weighed_down == {"nearly neutral": 1}


def test_the_cap_keeps_order_counts_the_rest_and_hangs_on_the_seed() -> None:
    rows = [Example(f"Fact {n}.", ("neutral",), id=str(n)) for n in range(30)] + [WARM]

    def capped(seed: int) -> tuple[list[str], CleaningReport]:
        kept, report = clean(rows, {})
        return [e.id for e in cap_neutral(kept, report, NeutralConfig(cap=10, seed=seed))], report

    ids, report = capped(0)
    assert len(ids) == 11
    assert ids == [*sorted(ids[:-1], key=int), "w"]
    assert report.dropped == {"over the neutral cap": 20}
    assert (report.kept, report.filter("neutral cap").read, report.filter("neutral cap").dropped) == (11, 31, 20)
    assert report.to_dict()["labels_kept"] == {"neutral": 10, "gratitude": 1}
    assert capped(0)[0] == ids != capped(1)[0]
