"""The page's HTML: nothing foreign gets through as markup, and every number is the reading's own."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from toolkit.apps.page import markup
from toolkit.apps.panel import tone
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.inference.divergence import compare

from ...doors.nasty import NASTY

HOSTILE = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "</blockquote></article><h1>x</h1>",
    "a & b &amp; c",
    '" onmouseover="x',
    "[link](http://example.com) ![i](http://example.com/x.png)",
    "\x1b[31mred\x00\u202eback\ud800",
)
# Everything that the page's own markup is made of.
TAGS = {
    "article", "p", "h2", "h3", "b", "ol", "li", "span", "details", "summary", "blockquote", "mark", "section", "div",
    "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


class Seen(HTMLParser):
    """Which tags and attributes a piece of HTML has, whether they close, and the text between them."""

    def __init__(self, piece: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.marked: list[str] = []
        self.feed(piece)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "mark" in self.open:
            self.marked.append(data)


@pytest.fixture
def both(reading: Callable[..., Analysis]) -> Comparison:
    author = reading(scores=dict.fromkeys(load_taxonomy("goemotions").labels, 0.0) | {"sadness": 0.6, "anger": 0.4})
    scores = dict.fromkeys(load_taxonomy("empathetic").labels, 0.0) | {"lonely": 0.75, "angry": 0.25}
    reader = reading(
        lens=Lens.READER, taxonomy="empathetic", emotion="lonely", fine_emotion="lonely", confidence=0.75,
        emotions=("lonely",), scores=scores,
    )  # fmt: skip
    return compare(author, reader, 0.2)


@pytest.mark.parametrize("text", [*HOSTILE, *NASTY.values()])
def test_nothing_foreign_becomes_markup(reading: Callable[..., Analysis], text: str) -> None:
    made = reading(text=f"so {text} ends", reasoning=f"It says “{text}”.", evidence=(text,), model=text)
    for piece in (
        markup.reading(made),
        markup.problem(text, text),
        markup.remark(text),
        markup.facts([(text, text)]),
        markup.table((text,), [(text, text)], text),
        markup.lines([text]),
        markup.tiles([(text, text)]),
        markup.counts("Labels", {text: 1}),
    ):
        seen = Seen(piece)
        assert set(seen.tags) <= TAGS
        assert not {name for name in seen.attributes if name.startswith("on") or name in ("src", "href")}
        piece.encode()  # no lone surrogate is left
        assert "\x1b" not in piece
        assert "\x00" not in piece


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_a_hostile_text_is_shown_as_it_was_written(reading: Callable[..., Analysis], text: str) -> None:
    assert Seen(markup.reading(reading(text=text, evidence=()))).text.count(text) == 1


def test_hidden_characters_are_shown_as_escapes(reading: Callable[..., Analysis]) -> None:
    shown = Seen(markup.reading(reading(text="a\u202eb\x00c", evidence=()))).text
    assert "a\\u202eb\\x00c" in shown


def test_a_reading_says_label_share_meaning_reasoning_and_evidence(reading: Callable[..., Analysis]) -> None:
    seen = Seen(markup.reading(reading()))
    for told in (
        "Author’s lens",
        "disappointment 62 %",
        load_taxonomy("goemotions").definition("disappointment"),
        "also: sadness 22 %",
        "a hope they had in others was let down",
        "all 28 labels",
    ):
        assert told in seen.text
    assert seen.marked == ["disappointed", "ignored"]
    assert seen.tags.count("li") == 28


def test_bars_are_as_long_as_the_scores(reading: Callable[..., Analysis]) -> None:
    made = markup.reading(reading())
    widths = re.findall(r'class="name">([a-z]+)</span>.*?width:([\d.]+)%', made)
    assert [(name, float(width)) for name, width in widths[:4]] == [
        ("disappointment", 62.0), ("sadness", 22.0), ("annoyance", 7.0), ("anger", 5.0),
    ]  # fmt: skip
    assert made.count('class="strong"') == 2


def test_without_reasoning_there_is_none(reading: Callable[..., Analysis]) -> None:
    made = markup.reading(reading(mode="fast", reasoning=None, evidence=()))
    assert 'class="reasoning"' not in made
    assert "<mark>" not in made


def test_an_unsure_reading_says_so(reading: Callable[..., Analysis]) -> None:
    made = markup.reading(reading(abstained=True))
    assert 'class="reading unsure"' in made
    assert "no clear emotion" in made
    assert "closest: disappointment, 62 %" in made


def test_a_long_text_is_shown_around_its_evidence(reading: Callable[..., Analysis]) -> None:
    seen = Seen(markup.reading(reading(text="word " * 2000 + "ignored" + " word" * 2000, evidence=("ignored",))))
    assert seen.marked == ["ignored"]
    assert "20,007 characters in all" in seen.text
    assert len(seen.text) < 3000


@pytest.mark.parametrize(
    ("lens", "label", "expected"),
    [
        (Lens.AUTHOR, "joy", "positive"),
        (Lens.AUTHOR, "anger", "negative"),
        (Lens.AUTHOR, "surprise", "ambiguous"),
        (Lens.AUTHOR, "neutral", "neutral"),
        (Lens.READER, "joyful", "positive"),
        (Lens.READER, "furious", "negative"),
        (Lens.READER, "nostalgic", "ambiguous"),
    ],
)
def test_the_tone_is_that_of_the_label(reading: Callable[..., Analysis], lens: Lens, label: str, expected: str) -> None:
    assert tone(reading(lens=lens, fine_emotion=label)) == expected


def test_a_comparison_shows_both_lenses_and_how_far_they_part(both: Comparison) -> None:
    made = markup.comparison(both)
    seen = Seen(made)
    assert seen.tags.count("article") == 2
    assert both.divergence.summary in seen.text
    assert both.divergence.score is not None
    assert f'class="fill" style="width:{100 * both.divergence.score:.1f}%"' in made
    assert 'class="line" style="left:20.0%"' in made
    assert "Reader’s lens" in seen.text


def test_lenses_that_cannot_be_compared_have_no_scale(both: Comparison) -> None:
    apart = compare(both.author, both.reader, None).divergence
    assert 'class="line"' not in markup.parting(apart)
    far = dict.fromkeys(load_taxonomy("empathetic").labels, 0.0) | {"nostalgic": 1.0}
    nothing = compare(both.author, _with_scores(both.reader, far), 0.2).divergence
    assert nothing.score is None
    assert 'class="scale"' not in markup.parting(nothing)


def _with_scores(analysis: Analysis, scores: dict[str, float]) -> Analysis:
    from dataclasses import replace

    return replace(analysis, scores=scores)


def test_counts_are_ranked_and_the_rest_is_counted() -> None:
    made = markup.counts("Labels", {"joy": 1, "anger": 6, "fear": 3}, limit=2)
    rows = re.findall(r'class="name">(\w+)</span>.*?width:([\d.]+)%.*?class="share">([^<]+)<', made)
    assert rows == [("anger", "100.0", "6 · 60 %"), ("fear", "50.0", "3 · 30 %")]
    assert "and 1 rarer labels" in made


def test_a_histogram_says_what_it_shows() -> None:
    made = markup.histogram("Sure", [0, 2, 0, 4], ("unsure", "sure"))
    assert re.findall(r"height:([\d.]+)%", made) == ["0.0", "50.0", "0.0", "100.0"]
    assert "6 texts, at least half of them at 0.75 or more" in made
    assert "no text" in markup.histogram("Sure", [0, 0], ("unsure", "sure"))


def test_a_preview_cuts_long_texts_and_skips_empty_ones() -> None:
    seen = Seen(markup.lines(["x" * 500, "", "  ", "short"]))
    assert seen.tags.count("li") == 2
    assert "x" * 160 + "…" in seen.text
    assert "x" * 161 not in seen.text


def test_a_problem_is_announced_with_its_next_step() -> None:
    made = markup.problem("No.", "Do it.")
    assert 'role="alert"' in made
    assert html.unescape(re.sub("<[^>]+>", " ", made)).split() == ["No.", "Do", "it."]
