"""Every nasty text and file through the page, on the tiny model in a worker of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import toolkit.apps.page
from toolkit.apps import tables
from toolkit.apps.page.shelf import Shelf

from .conftest import as_typed, check_reading, has_nothing_hidden
from .files import READ, REFUSED, as_stored
from .nasty import BLANK, EDGES, LARGE, NASTY

APP = Path(toolkit.apps.page.__file__).with_name("app.py")
TEXT, FILE = 0, 1  # tabs


@pytest.fixture(scope="module")
def page(tiny: Path) -> Iterator[AppTest]:
    """One visit to the page for all tests: what one leaves behind must not harm the next."""
    shelf = Shelf()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.apps.page.shelf.Shelf", lambda: shelf)
        patch.setenv("EMOTION_LRM_MODEL", str(tiny))
        patch.setenv("EMOTION_LRM_THREADS", "1")
        st.cache_resource.clear()
        yield AppTest.from_file(str(APP), default_timeout=60).run()
    st.cache_resource.clear()
    shelf.close()


def read(page: AppTest, text: str) -> None:
    page.text_area(key="text").set_value(text)
    page.button(key="read").click().run()
    assert not page.exception


def problems(page: AppTest, tab: int) -> list[str]:
    """The failures that stand in a tab, each with its next step."""
    return [element.body for element in page.tabs[tab].html if 'class="problem"' in element.body]


@pytest.mark.parametrize("name", [*NASTY, *EDGES])
def test_a_text(page: AppTest, texts: dict[str, str], name: str) -> None:
    text = as_typed(texts[name])
    read(page, text)
    assert not problems(page, TEXT)
    (asked, _), found = page.session_state["reading"]
    assert asked == text
    for reading in (found.author, found.reader):
        check_reading(reading.to_dict(), text, "explain")
    assert all(has_nothing_hidden(element.body) for element in page.html)


@pytest.mark.parametrize(
    ("text", "told"),
    [*((text, "The text is empty.</b><span>Write") for text in BLANK.values()),
     *((text, "Put it into a file") for text in LARGE.values())],
    ids=[*BLANK, *LARGE],
)  # fmt: skip
def test_a_text_that_is_not_read(page: AppTest, text: str, told: str) -> None:
    read(page, text)
    (problem,) = problems(page, TEXT)
    assert told in problem


def upload(page: AppTest, name: str, content: bytes) -> None:
    page.file_uploader(key="file").upload(name, as_stored(name, content)).run()
    assert not page.exception


def box(page: AppTest, label: str) -> Any:
    """What can be chosen under a label of the tab with the files."""
    (found,) = (box for box in page.tabs[FILE].selectbox if box.label == label)
    return found


def rows(page: AppTest) -> list[tuple[Any, str, str]]:
    """Read the file that was uploaded: id, status and text of every row of the result."""
    page.button(key="read-file").click().run()
    page.session_state["job"].wait(60)
    page.run()
    assert not page.exception
    found = page.session_state["job"].records()
    assert list(page.dataframe[0].value["status"]) == [row["status"] for row in found]
    return [(row["id"], row["status"], row["text"]) for row in found]


@pytest.mark.parametrize("case", [case for case, (name, *_) in READ.items() if "." in name])
def test_a_file(page: AppTest, case: str) -> None:
    name, content, expected = READ[case]
    upload(page, name, content)
    assert rows(page) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_read(page: AppTest, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(tables, "LARGEST_CELL", 1000)
    name, content, told = REFUSED[case]
    upload(page, name, content)
    (problem,) = problems(page, FILE)
    assert told in problem
    assert tempfile.gettempdir() not in problem
    assert "emotion-lrm-" not in problem


def test_how_a_file_is_read_can_be_chosen(page: AppTest) -> None:
    upload(page, "in.csv", "id;text\n1;Café, so good\n2;this, this\n".encode("cp1252"))
    assert box(page, "Column with the texts").options == ["id", "text"]
    box(page, "Cells end with").select("comma").run()
    assert box(page, "Column with the texts").options == ["id;text"]
    assert [status for _, status, _ in rows(page)] == ["error", "error"]
    page.button(key="again").click().run()
    box(page, "Cells end with").select("semicolon").run()
    assert box(page, "Column with the texts").value == 1
    box(page, "Encoding").select("utf-16").run()
    (problem,) = problems(page, FILE)
    assert "in.csv is no utf-16" in problem
    assert "Choose another encoding" in problem
    box(page, "Encoding").select("latin-1").run()
    box(page, "The first row holds").select("a text").run()
    box(page, "Column with the texts").select(1).run()
    assert rows(page) == [(0, "ok", "text"), (1, "ok", "Café, so good"), (2, "ok", "this, this")]


def test_what_was_said_of_one_file_says_nothing_of_the_next(page: AppTest) -> None:
    upload(page, "in.csv", b"title;notes\nHello;What a day!\n")
    assert box(page, "Column with the texts").value == 0
    box(page, "Cells end with").select("comma").run()
    upload(page, "in.csv", b"title;text\nHello;What a day!\n")
    assert box(page, "Cells end with").value == "as found"
    assert box(page, "Column with the texts").value == 1


def test_the_second_of_two_columns_of_one_name_can_be_chosen(page: AppTest) -> None:
    upload(page, "in.csv", b"text,id,text\nfirst,7,second\n")
    assert box(page, "Column with the texts").options == ["text (column 1)", "id", "text (column 3)"]
    box(page, "Column with the texts").select(2).run()
    assert rows(page) == [("7", "ok", "second")]
