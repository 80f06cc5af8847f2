"""Shares, soft targets and unreliable raters, with numbers by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from toolkit.contract.example import Example
from toolkit.corpora.agreement import (
    Agreement,
    AgreementConfig,
    agreed,
    attach,
    fuller,
    low_agreement,
    read_votes,
    summarize,
    unreliable_raters,
)
from toolkit.corpora.ratings import Rating
from toolkit.corpora.tables import Damage
from toolkit.errors import DataError

CONFIG = AgreementConfig()
RATINGS = [
    Rating("a", "So proud.", ("joy", "pride"), "1"),
    Rating("a", "So proud.", ("pride",), "2"),
    Rating("a", "So proud.", ("pride",), "3"),
    Rating("a", "So proud.", (), "4"),
    Rating("b", "Hm.", ("joy",), "1"),
    Rating("b", "Hm.", ("fear",), "2"),
]


def test_unclear_ratings_vote_for_nothing_and_are_counted() -> None:
    agreements, left_out = summarize(RATINGS, CONFIG)
    assert agreements["a"] == Agreement({"joy": 1, "pride": 3}, raters=3, unclear=1)
    assert agreements["a"].share("pride") == 1.0
    assert agreements["a"].share("joy") == pytest.approx(1 / 3)
    assert agreements["a"].share("fear") == 0.0
    assert not left_out


def test_soft_targets_mix_the_votes_with_the_official_labels() -> None:
    soft = Agreement({"joy": 1, "pride": 3}, 3).soft(("pride",), prior=2)
    assert list(soft) == ["joy", "pride"]
    assert soft == pytest.approx({"joy": 0.75 / 5, "pride": (2.25 + 2) / 5})
    assert Agreement({"joy": 2}, 2).soft(("fear",), prior=0) == {"joy": 1.0}
    assert Agreement({}, 0, 3).soft(("fear", "joy"), prior=2) == {"fear": 0.5, "joy": 0.5}


def test_raters_who_agree_with_nobody_are_left_out_and_newcomers_stay() -> None:
    good = [Rating(str(n), "t", ("joy",), rater) for n in range(40) for rater in ("1", "2", "3")]
    odd = [Rating(str(n), "t", ("fear",), "4") for n in range(40)]
    new = [Rating(str(n), "t", ("grief",), "5") for n in range(10)]
    assert unreliable_raters([*good, *odd, *new], 0.5, 30) == {"4"}
    assert unreliable_raters([*good, *odd, *new], 0.0, 30) == set()
    assert unreliable_raters(RATINGS, 0.5, 30) == set()
    agreements, left_out = summarize([*good, *odd], CONFIG)
    assert left_out == {"4"}
    assert agreements["0"] == Agreement({"joy": 3}, 3)


def test_attach_keeps_labels_and_leaves_unrated_texts_alone() -> None:
    agreements, _ = summarize(RATINGS, CONFIG)
    rated, unrated = Example("So proud.", ("pride",), id="a"), Example("Else.", ("joy",), id="z")
    first, second = attach([rated, unrated], agreements, CONFIG)
    assert first.labels == ("pride",)
    assert sum(first.target().values()) == pytest.approx(1.0)
    assert second == unrated
    assert list(attach([rated], agreements, AgreementConfig(soft=False))) == [rated]


def test_texts_without_enough_agreement_are_dropped_for_their_reason() -> None:
    agreements, _ = summarize(RATINGS, CONFIG)
    further = {"u": Agreement({"joy": 1}, 1, 2), "v": Agreement({}, 0, 1)}
    judge = low_agreement({**agreements, **further}, AgreementConfig(min_share=0.6))
    found = {name: judge(Example("t", ("pride",), id=name)) for name in ("a", "b", "u", "v", "z")}
    assert {name: f.reason for name, f in found.items() if f} == {
        "b": "raters disagree",
        "u": "most raters found it unclear",
    }


def test_without_official_splits_texts_have_the_labels_of_two_raters() -> None:
    agreements, _ = summarize(RATINGS, CONFIG)
    assert list(agreed(RATINGS, agreements, 2)) == [Example("So proud.", ("pride",), id="a")]
    assert [e.labels for e in agreed(RATINGS, agreements, 1)] == [("joy", "pride"), ("fear", "joy")]


def write_votes(path: Path, rows: list[str]) -> None:
    content = "\n".join(["id\tn\tsampled_votes", *rows]).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["votes.tsv", "votes.tsv.gz"])
def test_votes_are_read_and_the_fuller_source_speaks(tmp_path: Path, name: str) -> None:
    path, damage = tmp_path / name, Damage()
    rows = ["a\t2\t21:2", "b\t3\t14:2,17:1", "c\t1\t99:1", "d\t1\tjoy", "e\t1\t-1:1", "f\t1\t3:0", "g\t0\t"]
    write_votes(path, rows)
    votes = read_votes(path, damage)
    assert votes == {"a": Agreement({"pride": 2}, 2), "b": Agreement({"fear": 2, "joy": 1}, 3)}
    assert damage.count == 4
    with pytest.raises(DataError, match="line 4, has the votes '99:1'"):
        read_votes(path)
    agreements, _ = summarize(RATINGS, CONFIG)
    assert fuller(agreements, votes) == {"a": agreements["a"], "b": votes["b"]}


def test_min_share_is_unsafe_where_votes_keep_the_first_label_alone(tmp_path: Path) -> None:
    ratings = [Rating("a", "So proud, so glad.", ("joy", "pride"), rater) for rater in ("1", "2", "3")]
    write_votes(tmp_path / "votes.tsv.gz", ["a\t3\t17:3"])  # what is left of them
    whole, reduced = summarize(ratings, CONFIG)[0], read_votes(tmp_path / "votes.tsv.gz")
    text, config = Example("So proud, so glad.", ("pride",), id="a"), AgreementConfig(min_share=0.1)
    assert low_agreement(whole, config)(text) is None
    found = low_agreement(reduced, config)(text)
    assert found is not None
    assert found.reason == "raters disagree"
