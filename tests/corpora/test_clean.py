"""Each filter says no for its own reason, and the report counts what happened."""

from __future__ import annotations

from itertools import pairwise

import pytest

from toolkit.contract.example import Example
from toolkit.corpora.clean import CleanConfig, build_filters, clean
from toolkit.corpora.duplicates import exact_duplicates, near_copies, near_duplicates
from toolkit.corpora.filters import (
    Filter,
    foreign,
    links,
    masks_only,
    other_language,
    repeats,
    spam,
    too_short,
)


def example(text: str) -> Example:
    return Example(text, ("joy",))


@pytest.mark.parametrize(
    ("judge", "text", "reason"),
    [
        (too_short(2), "Hi", "too short"),
        (too_short(1), "...", "too short"),
        (masks_only, "[NAME] [RELIGION]!", "nothing but masks"),
        (links(0.3, 0.5), "see https://example.org/a", "mostly links"),
        (repeats(0.7), "spam spam spam spam spam spam egg", "one word over and over"),
        (foreign(0.3), "Это просто какой-то текст ok", "hardly any English letters"),
        (spam, "I’m a bot, and this action was performed for you", "spam or a bot"),
        (spam, "Use code HAPPY22 at my shop", "spam or a bot"),
        (other_language(0.3), "Ich bin nicht so alt und das ist gut", "another language"),
        (other_language(0.3), "Muchas gracias por todo, pero no es para mí", "another language"),
    ],
)
def test_a_filter_drops_for_its_reason(judge: Filter, text: str, reason: str) -> None:
    finding = judge(example(text))
    assert finding is not None
    assert (finding.reason, finding.factor) == (reason, 0.0)


@pytest.mark.parametrize(
    ("judge", "text"),
    [
        (too_short(1), "😂"),
        (too_short(1), ":)"),
        (masks_only, "[NAME] won"),
        (masks_only, "[NAME] 😂"),
        (links(0.3, 0.5), "no link at all here"),
        (repeats(0.7), "no no no"),
        (foreign(0.3), "My café is naïve"),
        (foreign(0.3), "123 !!!"),
        (spam, "My code is awful and I buy nothing now"),
        (other_language(0.3), "My abuela said que sera and we all laughed at it"),
        (other_language(0.3), "Und dann nicht"),
    ],
)
def test_a_filter_keeps_what_is_fine(judge: Filter, text: str) -> None:
    assert judge(example(text)) is None


def test_a_link_in_a_longer_text_lowers_the_weight() -> None:
    finding = links(0.3, 0.5)(example("I wrote it all down at https://example.org for you"))
    assert finding is not None
    assert (finding.reason, finding.factor) == ("holds a link", 0.5)


def test_a_second_copy_is_dropped_and_the_first_stays() -> None:
    kept, report = clean(
        [example("same  text"), example("same text"), example("other text")], {"exact": exact_duplicates()}
    )
    assert [e.text for e in kept] == ["same  text", "other text"]
    assert report.dropped == {"exact duplicate": 1}


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("i really LOVE this old song of yours!!!", True),
        ("I really love this old song of yours, and I play it to my children at night", False),
        ("Completely different words stand here", False),
    ],
)
def test_near_duplicates_of_another_split_are_dropped(text: str, dropped: bool) -> None:
    judge = near_duplicates([example("I really love this old song of yours")], 0.8)
    assert (judge(example(text)) is not None) is dropped


def test_near_copies_inside_a_split_leave_the_first() -> None:
    texts = ["I saw 3 dogs in the park today", "I saw 4 dogs in the park TODAY!", "I saw the park", "i saw the park"]
    kept, report = clean([example(t) for t in texts], {"near": near_copies(0.9)})
    assert [e.text for e in kept] == [texts[0], texts[2]]
    assert report.dropped == {"near duplicate": 2}


def test_the_report_adds_up() -> None:
    texts = ["...", "a good day", "a good day", "[NAME]", "look at this one on https://example.org today please"]
    kept, report = clean([example(t) for t in texts], build_filters(CleanConfig()))
    assert [e.weight for e in kept] == [1.0, 0.5]
    result = report.to_dict()
    assert result["read"] == 5
    assert result["read"] == result["kept"] + sum(result["dropped"].values())
    assert result["weighed_down"] == {"holds a link": 1}
    assert result["examples"]["nothing but masks"] == ["[NAME]"]
    assert result["labels_kept"] == {"joy": 2}
    assert result["dropped_by_label"] == {"joy": {"too short": 1, "nothing but masks": 1, "exact duplicate": 1}}


def test_what_leaves_one_filter_enters_the_next() -> None:
    texts = ["...", "a good day", "a good day", "[NAME]", "look at this one on https://example.org today please"]
    _, report = clean([example(t) for t in texts], build_filters(CleanConfig()))
    passages = list(report.filters.values())
    assert [(p.read, p.dropped) for p in passages[:2]] == [(5, 1), (4, 1)]
    assert all(a.read - a.dropped == b.read for a, b in pairwise(passages))
    assert passages[-1].read - passages[-1].dropped == report.kept
    assert report.filters["max_link_share"].weighed_down == 1


def test_a_filter_that_is_off_is_not_there() -> None:
    off = CleanConfig(exact_duplicates=False, masks_only=False, spam=False, near_duplicates=None, near_copies=None)
    assert set(build_filters(CleanConfig())) - set(build_filters(off)) == {
        "exact_duplicates",
        "masks_only",
        "spam",
        "near_duplicates",
        "near_copies",
    }
