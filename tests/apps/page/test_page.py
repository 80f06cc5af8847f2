"""The page as its visitors use it, run by Streamlit's own test runner on a model in a real worker process."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import toolkit.apps.page
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.page.text_tab import LONGEST

APP = Path(toolkit.apps.page.__file__).with_name("app.py")
TEXT = "I feel disappointed and ignored..."


@pytest.fixture
def visit(shared_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Opens the page with settings from the environment; its models are stand-ins that know both lenses."""
    monkeypatch.setattr("toolkit.apps.page.shelf.Shelf", lambda: shared_shelf)
    st.cache_resource.clear()

    def opened(**settings: str) -> AppTest:
        for name, value in settings.items():
            monkeypatch.setenv(f"EMOTION_LRM_{name.upper()}", value)
        page = AppTest.from_file(str(APP), default_timeout=60).run()
        assert not page.exception
        return page

    return opened


@pytest.fixture
def two_lenses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page believes that the model has learned both lenses, as the stand-in has."""
    monkeypatch.setattr("toolkit.apps.page.choice.known_lenses", lambda _: ("author", "reader", "both"))
    monkeypatch.setattr("toolkit.apps.page.shelf.wanted_model", lambda _: "two")


def read(page: AppTest, text: str) -> AppTest:
    page.text_area(key="text").set_value(text)
    page.button(key="read").click().run()
    assert not page.exception
    return page


def shown(page: AppTest) -> str:
    return "\n".join(element.body for element in page.html)


def words(page: AppTest) -> str:
    """What the page's own HTML says, less its markup."""
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", shown(page), flags=re.DOTALL)


def test_the_first_sight_invites_to_write(visit: Callable[..., AppTest]) -> None:
    page = visit()
    assert [tab.label for tab in page.tabs] == ["Text", "File", "Model"]
    assert page.text_area(key="text").value == ""
    assert 'class="reading' not in shown(page)
    assert "is no diagnosis" in words(page)


def test_a_text_is_read(visit: Callable[..., AppTest]) -> None:
    page = read(visit(), TEXT)
    assert shown(page).count('class="reading') == 1
    assert "Read with 1 by" in words(page)
    assert TEXT in words(page)


def test_an_example_is_one_click(visit: Callable[..., AppTest]) -> None:
    page = visit()
    page.button(key="example-1").click().run()
    assert page.text_area(key="text").value.startswith("You stayed up all night")
    assert 'class="reading' in shown(page)


def test_both_lenses_stand_side_by_side(visit: Callable[..., AppTest], two_lenses: None) -> None:  # noqa: ARG001
    page = read(visit(lens="both"), TEXT)
    assert shown(page).count('class="reading') == 2
    assert 'class="pair"' in shown(page)
    assert 'class="parting"' in shown(page)


def test_the_lens_can_be_changed_and_the_text_is_read_anew(
    visit: Callable[..., AppTest],
    two_lenses: None,  # noqa: ARG001
) -> None:
    page = read(visit(), TEXT)
    assert "Author’s lens" in shown(page)
    page.segmented_control(key="text-lens").set_value("reader").run()
    assert "Reader’s lens" in shown(page)
    assert page.selectbox(key="text-taxonomy-reader").options == [
        "EmpatheticDialogues (32 emotions)",
        "Ten shared emotions",
    ]


def test_a_model_of_one_lens_offers_no_choice_of_lenses(visit: Callable[..., AppTest]) -> None:
    page = visit(model="emotion-smollm2-135m")
    assert not [control for control in page.segmented_control if "lens" in (control.key or "")]
    assert [option.split()[0] for option in page.selectbox(key="text-taxonomy-author").options] == [
        "GoEmotions", "Ekman", "Sentiment", "Ten",
    ]  # fmt: skip


def test_labels_and_mode_can_be_chosen(visit: Callable[..., AppTest]) -> None:
    page = read(visit(taxonomy="ekman", mode="fast"), TEXT)
    assert "Ekman (6 emotions and neutral)" in words(page)
    assert "all 7 labels" in words(page)
    page.selectbox(key="text-taxonomy-author").select("sentiment").run()
    assert "Sentiment (positive" in words(page)


def test_the_same_question_is_asked_once(visit: Callable[..., AppTest]) -> None:
    page = read(visit(), TEXT)
    first = shown(page)
    page.run()
    assert shown(page) == first
    assert page.session_state["reading"][0][0] == TEXT


@pytest.mark.parametrize(
    ("text", "cause", "step"),
    [
        ("", "The text is empty.", "Write or paste at least one word."),
        ("  \n ", "The text is empty.", "Write or paste at least one word."),
        ("x" * (LONGEST + 1), "50,001 characters", "Put it into a file"),
        ("raise now", "llama.cpp could not evaluate a batch.", "Report this."),
        ("abort now", "ended", ""),
    ],
)
def test_a_failure_is_one_sentence_and_a_step_and_the_page_goes_on(
    visit: Callable[..., AppTest], text: str, cause: str, step: str
) -> None:
    page = read(visit(), text)
    assert 'class="problem"' in shown(page)
    assert cause in words(page)
    assert step in words(page)
    assert "Traceback" not in words(page)
    page = read(page, TEXT)
    assert 'class="problem"' not in shown(page)
    assert 'class="reading' in shown(page)


def test_a_text_in_markup_is_shown_as_text(visit: Callable[..., AppTest]) -> None:
    hostile = "<script>alert(1)</script> **bold** ![i](http://example.com/x.png)"
    page = read(visit(), hostile)
    assert "<script>" not in shown(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; **bold** ![i](http://example.com/x.png)" in shown(page)


def test_a_model_that_does_not_load_is_said(visit: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.apps.page.shelf.wanted_model", lambda _: "missing")
    page = read(visit(), TEXT)
    assert "There is no model &#x27;missing&#x27;." in shown(page)


def test_a_broken_setting_is_said_on_the_page(visit: Callable[..., AppTest]) -> None:
    page = visit(mode="slow")
    assert "EMOTION_LRM_MODE" in words(page)


# Files


COLUMN = "Column with the texts"


def column(page: AppTest) -> Any:
    return next(box for box in page.selectbox if box.label == COLUMN)


def upload(page: AppTest, name: str, content: bytes) -> AppTest:
    page.file_uploader(key="file").upload(name, content).run()
    assert not page.exception
    return page


def settled(page: AppTest) -> AppTest:
    """Run until the file is read, as the page does by itself every second."""
    end = time.monotonic() + 60
    while page.session_state["job"].running:
        assert time.monotonic() < end
        time.sleep(0.05)
    return page.run()


def test_a_file_is_read(visit: Callable[..., AppTest]) -> None:
    page = upload(visit(), "my.csv", b"id,comment\n1,What a day!\n2,\n3,raise now\n")
    assert column(page).options == ["id", "comment"]
    assert column(page).value == 1
    assert "What a day!" in words(page)
    page = settled(page.button(key="read-file").click().run())
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["text"]) == ["What a day!", "", "raise now"]
    assert list(table["status"]) == ["ok", "empty", "error"]
    assert "3 rows" in re.sub(r"\s+", " ", words(page))
    assert "why rows failed" in words(page)
    assert [button.label for button in page.get("download_button") if "Download" in button.label][-3:] == [
        "Download CSV", "Download JSONL", "Download Parquet",
    ]  # fmt: skip


def test_another_column_can_be_chosen(visit: Callable[..., AppTest]) -> None:
    page = upload(visit(), "my.tsv", b"title\tnotes\nHello\tWhat a day!\n")
    column(page).select_index(1).run()
    page = settled(page.button(key="read-file").click().run())
    assert list(page.dataframe[0].value["text"]) == ["What a day!"]


def test_plain_lines_have_no_column(visit: Callable[..., AppTest]) -> None:
    page = upload(visit(), "my.txt", b"What a day!\nLeave me alone.\n")
    assert COLUMN not in [box.label for box in page.selectbox]
    page = settled(page.button(key="read-file").click().run())
    assert len(page.dataframe[0].value) == 2


def test_both_lenses_of_a_file(visit: Callable[..., AppTest], two_lenses: None) -> None:  # noqa: ARG001
    page = upload(visit(lens="both"), "my.txt", b"What a day!\n")
    page = settled(page.button(key="read-file").click().run())
    assert {"author", "reader", "divergence"} <= set(page.dataframe[0].value.columns)
    assert "not comparable" in words(page)  # the stand-in spreads its probability over all labels
    page.button(key="again").click().run()
    page.selectbox(key="file-taxonomy-both").select("shared10").run()
    page = settled(page.button(key="read-file").click().run())
    assert "0.00 mean divergence" in re.sub(r"\s+", " ", words(page))


def test_another_file_begins_anew(visit: Callable[..., AppTest]) -> None:
    page = settled(upload(visit(), "a.txt", b"one\n").button(key="read-file").click().run())
    page = upload(page, "b.txt", b"two\nthree\n")
    assert not page.dataframe
    assert "two" in words(page)


def test_a_result_can_be_left_to_read_the_file_another_way(visit: Callable[..., AppTest]) -> None:
    page = settled(upload(visit(), "a.txt", b"one\n").button(key="read-file").click().run())
    page.button(key="again").click().run()
    assert page.button(key="read-file").label == "Read the file"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
def test_a_file_that_finds_no_room_is_said_at_every_run(
    visit: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tempfile.mkdtemp

    def full(**options: str) -> str:
        folder = made(**options)
        Path(folder, "my.txt").symlink_to("/dev/full")
        return folder

    page = visit()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        upload(page, "my.txt", b"What a day!\n")
        said = []
        for _ in range(2):
            said += [element.body for element in page.html if 'class="problem"' in element.body]
            page.run()
    assert len(said) == 2
    assert len(set(said)) == 1
    assert "The disk is full: my.txt</b><span>Free some space" in said[0]
    assert "What a day!" in words(page.run())


# Models


def test_the_model_tab_shows_card_and_figures(visit: Callable[..., AppTest]) -> None:
    page = visit()
    assert page.selectbox(key="model-choice").value == "emotion-smollm2-135m"
    for told in ("Apache-2.0", "GoEmotions", "calibration error", "shared10", "This model reads"):
        assert told in words(page)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is served to this machine alone, as `emotion-lrm ui` does by default."""
    monkeypatch.setattr(st, "get_option", {"server.address": "127.0.0.1"}.get)


@pytest.mark.parametrize(("address", "offered"), [("127.0.0.1", 1), ("::1", 1), ("0.0.0.0", 0), ("192.168.1.5", 0)])
def test_only_visitors_on_this_machine_may_name_files_on_it(
    visit: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, address: str, offered: int
) -> None:
    monkeypatch.setattr(st, "get_option", {"server.address": address}.get)
    options = visit().selectbox(key="model-choice").options
    assert len([option for option in options if "a GGUF file" in option]) == offered


@pytest.mark.usefixtures("local")
def test_another_model_can_be_used(
    visit: Callable[..., AppTest], tmp_path: Path, write_gguf: Callable[..., Path]
) -> None:
    path = write_gguf(tmp_path / "mine.gguf", name="mine", lenses='["author", "reader"]')
    page = visit()
    page.selectbox(key="model-choice").select_index(-1).run()
    page.text_input(key="path").set_value(str(path)).run()
    assert "mine.gguf" in words(page)
    page.button(key="use").click().run()
    assert page.session_state["model"] == str(path)
    assert len(page.segmented_control(key="text-lens").options) == 3


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("path", "cause"), [("/no/such.gguf", "There is no model file"), ("/etc/passwd", "no GGUF file")]
)
def test_a_path_that_is_no_model_is_said(visit: Callable[..., AppTest], path: str, cause: str) -> None:
    page = visit()
    page.selectbox(key="model-choice").select_index(-1).run()
    page.text_input(key="path").set_value(path).run()
    assert cause in words(page)
    assert "use" not in [button.key for button in page.button]
