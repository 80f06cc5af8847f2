"""The page in a real browser: typed, clicked, uploaded, downloaded, on a phone, in the dark, by keyboard alone."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from toolkit.contract.taxonomy import load_taxonomy

from ..doors.tiny import write_tiny

if TYPE_CHECKING:
    from conftest import Visit

TEXT = "I feel disappointed and ignored..."
LABELS = load_taxonomy("goemotions").labels
HOSTILE = '<img src=x onerror="document.title=1"> <script>document.title=2</script> **b** \u202eabc =cmd() [red]x[/red]'


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    found: int = page.evaluate(
        "Math.max(...[document.documentElement, ...document.querySelectorAll('.stMain')]"
        ".map(e => e.scrollWidth - e.clientWidth))"
    )
    return found


def read(page: Page, text: str) -> None:
    page.get_by_label("Text to read").fill(text)
    page.get_by_role("button", name="Read", exact=True).click()


def test_a_text_is_typed_and_read(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    read(page, TEXT)
    reading = page.locator("article.reading")
    expect(reading).to_have_count(1)
    heading = reading.locator("h2").inner_text()
    assert heading == "no clear emotion" or heading.split()[0] in LABELS
    assert reading.locator(".reasoning").inner_text()
    assert "".join(reading.locator("blockquote").inner_text().split()) == "".join(TEXT.split())
    marks = reading.locator("mark").all_inner_texts()
    assert marks
    assert all(mark in TEXT for mark in marks)
    bars = reading.locator(".bars").first.locator("li")
    expect(bars).to_have_count(5)
    share = int(re.sub(r"\D", "", bars.first.locator(".share").inner_text()))
    assert bars.first.locator(".fill").evaluate("e => e.style.width").startswith(str(share)[:1])
    page.get_by_text("all 28 labels").click()
    expect(reading.locator("li:visible")).to_have_count(28)


def test_the_reading_is_that_of_the_command_line(
    visit: Visit, page_url: str, default_model: object, tmp_path: Path
) -> None:
    page = visit(page_url)
    read(page, TEXT)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download as JSON").click()
    waiting.value.save_as(tmp_path / "reading.json")
    found = json.loads((tmp_path / "reading.json").read_text(encoding="utf-8"))
    expected = default_model.analyze(TEXT).to_dict()  # type: ignore[attr-defined]
    assert found["emotion"] == expected["emotion"]
    assert found["scores"] == pytest.approx(expected["scores"], abs=0.02)
    assert found.keys() == expected.keys()


def test_labels_and_mode_change_the_reading(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    read(page, TEXT)
    expect(page.locator("article .reasoning")).to_have_count(1)
    page.get_by_role("radio", name="Labels only").first.click()
    expect(page.locator("article .reasoning")).to_have_count(0)
    page.get_by_label("Labels", exact=True).first.click()
    page.get_by_role("option", name="Ekman (6 emotions and neutral)").click()
    expect(page.locator("article.reading")).to_contain_text("all 7 labels")


def test_a_hostile_text_stays_a_text(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    read(page, HOSTILE)
    quoted = page.locator("blockquote")
    expect(quoted).to_contain_text("<script>document.title=2</script> **b** \\u202eabc =cmd() [red]x[/red]")
    assert page.locator("article img, article script").count() == 0
    assert page.title() == "Emotion-LRM"


def test_an_empty_text_is_told_and_announced(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="The text is empty.")).to_be_visible()


def test_by_keyboard_alone(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    box = page.get_by_label("Text to read")
    for _ in range(12):
        page.keyboard.press("Tab")
        if box.evaluate("e => e === document.activeElement"):
            break
    else:
        raise AssertionError("the box is not reached with the tabulator")
    page.keyboard.type("What a wonderful day!")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.reading")).to_contain_text("What a wonderful day!")
    page.get_by_role("tab", name="Text").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_text("File with texts")).to_be_visible()


def test_a_file_is_uploaded_read_and_downloaded(visit: Visit, page_url: str, tmp_path: Path) -> None:
    source = tmp_path / "comments.csv"
    source.write_text('id,comment\na,What a day!\nb,""\nc,"=cmd(), <b>Leave</b> me alone."\n', encoding="utf-8")
    page = visit(page_url)
    page.get_by_role("tab", name="File").click()
    page.locator("input[type=file]").set_input_files(source)
    expect(page.locator(".preview")).to_contain_text("=cmd(), <b>Leave</b> me alone.")
    page.get_by_role("radio", name="Labels only").last.click()
    page.get_by_role("button", name="Read the file").click()
    expect(page.locator(".tiles")).to_contain_text("3")
    expect(page.locator(".chart").first).to_be_visible()
    rows: dict[str, list[dict[str, str]]] = {}
    for form in ("CSV", "JSONL"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {form}", exact=True).click()
        assert waiting.value.suggested_filename == f"comments-emotions.{form.lower()}"
        waiting.value.save_as(tmp_path / form)
        with open(tmp_path / form, encoding="utf-8", newline="") as file:
            rows[form] = list(csv.DictReader(file)) if form == "CSV" else [json.loads(line) for line in file]
        assert [(row["id"], row["status"]) for row in rows[form]] == [("a", "ok"), ("b", "empty"), ("c", "ok")]
        assert rows[form][0]["emotion"] in LABELS
    assert rows["CSV"][2]["text"].startswith("'=cmd()")
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    page.get_by_role("button", name="Read it another way").click()
    expect(page.get_by_role("button", name="Read the file")).to_be_visible()


def test_the_reading_of_a_file_is_stopped(visit: Visit, both_lenses_url: str, tmp_path: Path) -> None:
    source = tmp_path / "slow.txt"
    source.write_text("".join(f"sleep 0.1{'0' * n}\n" for n in range(100)), encoding="utf-8")
    page = visit(both_lenses_url)
    page.get_by_role("tab", name="File").click()
    page.locator("input[type=file]").set_input_files(source)
    page.get_by_role("button", name="Read the file").click()
    page.locator(".st-key-stop button").click()
    expect(page.get_by_role("alert").filter(has_text="The run was stopped.")).to_be_visible()
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_role("button", name="Read the file")).to_be_visible()


def test_a_gguf_file_is_chosen_and_reads(visit: Visit, page_url: str, tmp_path: Path) -> None:
    page = visit(page_url)
    page.get_by_role("tab", name="Model").click()
    page.locator(".st-key-model-choice input").click()
    page.get_by_role("option", name="a GGUF file on this machine").click()
    page.get_by_label("Path of the GGUF file").fill(str(write_tiny(tmp_path / "mine.gguf")))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Use this model").click()
    expect(page.get_by_text("This model reads now.")).to_be_visible()
    page.get_by_role("tab", name="Text").click()
    read(page, TEXT)
    expect(page.locator("article.reading")).to_contain_text("mine · ")


def test_the_model_tab_shows_card_and_figures(visit: Visit, page_url: str) -> None:
    page = visit(page_url)
    page.get_by_role("tab", name="Model").click()
    expect(page.locator(".facts")).to_contain_text("Apache-2.0")
    expect(page.locator("table").first).to_contain_text("calibration error")
    page.get_by_text("The whole model card").click()
    expect(page.get_by_text("It must not be used to judge a person’s health").or_(page.get_by_text(
        "It must not be used to judge a person's health"))).to_be_visible()  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(visit: Visit, both_lenses_url: str, tmp_path: Path, dark: bool) -> None:
    source = tmp_path / "a.txt"
    source.write_text("What a day!\n" + "x" * 300 + "\n", encoding="utf-8")
    page = visit(both_lenses_url, width=390, height=844, dark=dark)
    read(page, "W" * 300 + " and ignored")
    expect(page.locator("article.reading")).to_have_count(2)
    first, second = (article.bounding_box() for article in page.locator("article.reading").all())
    assert first is not None
    assert second is not None
    assert second["y"] >= first["y"] + first["height"]
    assert overflow(page) == 0
    for tab in ("File", "Model"):
        page.get_by_role("tab", name=tab).click()
        if tab == "File":
            page.locator("input[type=file]").set_input_files(source)
            page.get_by_role("button", name="Read the file").click()
            expect(page.locator(".chart").first).to_be_visible()
        assert overflow(page) == 0
    for size in page.locator("p:visible, li:visible, button:visible").evaluate_all(
        "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"
    ):
        assert size >= 12


def test_both_lenses_stand_side_by_side(visit: Visit, both_lenses_url: str) -> None:
    page = visit(both_lenses_url)
    read(page, TEXT)
    expect(page.locator("article.reading")).to_have_count(2)
    left, right = (article.bounding_box() for article in page.locator("article.reading").all())
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    expect(page.locator(".parting h2")).to_be_visible()
    page.get_by_role("radio", name="Reader").first.click()
    expect(page.locator("article.reading")).to_have_count(1)
    expect(page.locator("article.reading .lens")).to_have_text("Reader’s lens")


# Of the words of every element that can be seen, on the nearest ground that is painted: WCAG 2.1, level AA.
FAINT = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = data => [0.2126, 0.7152, 0.0722].reduce((sum, weight, n) => {
    const share = data[n] / 255;
    return sum + weight * (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const data = rgba(getComputedStyle(e).backgroundColor);
      if (data[3] > 250) return data;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const e of document.querySelectorAll(".stApp *")) {
    const says = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const box = e.getBoundingClientRect();
    if (!says || !box.width || !e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
    const [one, other] = [light(rgba(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) faint.push(`${e.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_words_stand_out(visit: Visit, page_url: str, dark: bool) -> None:
    page = visit(page_url, dark=dark)
    page.wait_for_timeout(1000)  # colours fade in
    assert page.evaluate(FAINT) == []
    read(page, TEXT)
    expect(page.locator("article.reading")).to_be_visible()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    assert page.evaluate(FAINT) == []
    for tab in ("File", "Model"):
        page.get_by_role("tab", name=tab).click()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        assert page.evaluate(FAINT) == []


def test_dark_and_light_follow_the_system(visit: Visit, page_url: str) -> None:
    brightness = {}
    for dark in (False, True):
        page = visit(page_url, dark=dark)
        found = page.locator(".stApp").evaluate("e => getComputedStyle(e).backgroundColor")
        brightness[dark] = sum(map(int, re.findall(r"\d+", found)[:3]))
    assert brightness[False] > 3 * 230
    assert brightness[True] < 3 * 40
