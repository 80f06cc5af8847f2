"""The report of an evaluation: its arithmetic by hand, its pages safe and whole, its pictures not blank."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.cli import main
from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError
from toolkit.evaluation import curves, document, metrics, plots
from toolkit.evaluation.answers import rate_answers
from toolkit.evaluation.evaluate import Judged, judge, read
from toolkit.evaluation.protocols import load_rows
from toolkit.evaluation.reasoning_blocks import reasoning_blocks
from toolkit.evaluation.report import _abstention_words as abstention_words
from toolkit.evaluation.report import _figures as headline
from toolkit.evaluation.report import to_json, write_report
from toolkit.evaluation.thresholds import fit_abstention, folds
from toolkit.inference.calibration import Calibration, LensCalibration

from .conftest import ROWS, StandIn

HOSTILE = "<script>alert(1)</script> \u202eevil & \u2066x [red] | `y` javascript:"
PICTURES = {
    "confusion_matrix.png", "confusion_matrix_normalised.png", "true_label_distribution.png",
    "predicted_label_distribution.png", "f1_by_label.png", "reliability.png", "risk_coverage.png",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page: its tags, their attributes, its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(path: Path) -> Page:
    """The page is well-formed, fetches nothing and runs nothing."""
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert page.open == []
    assert "http:" not in source
    assert "https:" not in source
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not set("\u202e\u2066\x00") & set(source)
    assert "prefers-color-scheme: dark" in source
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    return page


def check_picture(raw: bytes) -> None:
    """A PNG that opens and is not blank."""
    with Image.open(io.BytesIO(raw)) as image:
        assert image.format == "PNG"
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 10
    assert max(count for count, _ in colours) < 0.995 * sum(count for count, _ in colours)


def judged(corpora: Path, model: StandIn | None = None, protocol: str = "sentiment", mode: str = "explain") -> Judged:
    model, rows = model or StandIn(), load_rows(protocol, "test", source=corpora)
    return judge(model, rows, read(model, rows), mode=mode)


# Arithmetic


def test_reliability_by_hand() -> None:
    confidence = np.array([0.9, 0.1, 0.2, 0.8, 0.6])
    correct = np.array([True, False, True, True, False])
    found = curves.reliability(confidence, correct, bins=2)  # {.1, .2, .6} and {.8, .9}
    assert found.confidence == pytest.approx([0.3, 0.85])
    assert found.correct == pytest.approx([1 / 3, 1.0])
    assert list(found.rows) == [3, 2]
    gaps = (found.rows * np.abs(found.confidence - found.correct)).sum() / 5
    assert gaps == pytest.approx(metrics.calibration_error(confidence, correct, bins=2))


def test_there_are_fifteen_bins_of_equal_mass() -> None:
    rows = curves.reliability(np.linspace(0, 1, 100), np.ones(100, dtype=bool)).rows
    assert (len(rows), rows.sum(), set(rows)) == (15, 100, {6, 7})
    assert len(curves.reliability(np.array([0.5]), np.array([True])).rows) == 1  # no empty ones


def test_risk_and_coverage_by_hand() -> None:
    confidence = np.array([0.5, 0.9, 0.7, 0.7, 0.2])
    correct = np.array([True, True, True, False, False])
    found = curves.risk_coverage(confidence, correct)
    # one row alone, then the two of equal confidence together, then one by one
    assert found.coverage == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert found.risk == pytest.approx([0.0, 1 / 3, 1 / 4, 2 / 5])
    assert found.area == pytest.approx((0 + 2 / 3 + 1 / 4 + 2 / 5) / 5)
    assert curves.risk_of(confidence >= 0.5, correct) == (pytest.approx(0.8), pytest.approx(0.25))
    assert curves.risk_of(confidence >= 0.95, correct) == (0.0, None)


def test_confusion_counts_rows_with_one_gold_label() -> None:
    scores = np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8]])
    gold = np.array([[1, 0], [0, 1], [0, 1], [1, 1]], dtype=bool)
    counts = curves.confusion(scores, gold)
    assert counts.tolist() == [[1, 0], [1, 1]]
    assert curves.in_shares(counts).tolist() == [[1, 0], [0.5, 0.5]]
    assert np.isnan(curves.in_shares(np.zeros((2, 2), dtype=np.int64))).all()


def test_the_surest_mistakes_come_first() -> None:
    scores = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    correct = np.array([False, True, False, False])
    assert curves.surest_mistakes(scores, correct, 2) == [2, 3]


def test_the_difference_is_paired() -> None:
    correct, other = np.array([True] * 50 + [False] * 50), np.array([True] * 40 + [False] * 60)
    difference, (low, high) = curves.paired_difference(correct, other)
    assert difference == pytest.approx(0.1)
    assert 0.02 < low < 0.1 < high < 0.18  # ten rows of a hundred differ, all to one side
    assert curves.paired_difference(correct, correct) == (0.0, (0.0, 0.0))


def test_how_varied_the_reasoning_is() -> None:
    written = ["One two three.", "One two three.", "Go on and on and on and stop."]
    found = rate_answers([(render_answer("joy", words), "x") for words in written], Lens.AUTHOR)
    assert (found.copied, found.repeating) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    # "Go on" and "and stop." once, "on and" thrice, "and on" twice; "One two" and "two three." twice
    assert found.distinct_2 == pytest.approx(6 / 11)
    assert found.words == pytest.approx((3 + 3 + 8) / 3)


# The files


def test_a_report_is_whole_and_safe(corpora: Path, tmp_path: Path) -> None:
    path = corpora / "goemotions" / "test.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("Leave me alone", HOSTILE), encoding="utf-8")
    model = StandIn(Calibration({"author": LensCalibration(abstain_below={"goemotions": 0.55})}))
    model.known[HOSTILE] = model.known["Leave me alone"]
    names = write_report([judged(corpora, model, "goemotions")], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    assert set(names) == PICTURES | {"report.html", "report.md", "report.json"}
    page = check_page(tmp_path / "out" / "report.html")
    assert "<script>alert(1)</script> \ufffdevil & \ufffdx [red] | `y`" in page.text
    assert "it answers 70.0 % of these texts, 42.9 % of them wrongly" in page.text
    assert "Reasoning quality" in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(PICTURES)
    for name in PICTURES:
        check_picture((tmp_path / "out" / name).read_bytes())
    for name in ("report.md", "report.json"):  # may be passed on: no text of anybody
        written = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert not any(text.strip() in written for text, _, _ in ROWS if text.strip())
        assert "script" not in written


def test_the_json_holds_what_was_measured(corpora: Path, tmp_path: Path) -> None:
    one = judged(
        corpora, StandIn(Calibration({"author": LensCalibration(abstain_below={"goemotions": 0.55})})), "goemotions"
    )
    write_report([one], tmp_path)
    (told,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["models"]
    assert told["accuracy"] == 0.7
    assert [(row["row"], row["gold"], row["predicted"]) for row in told["surest_mistakes"]] == [
        (4, ["sadness"], "joy"), (2, ["annoyance"], "anger"), (6, ["sadness"], "grief"),
    ]  # fmt: skip
    assert sum(map(sum, told["confusion"])) == 8  # two rows have two labels
    assert told["true_distribution"]["sadness"] == 2
    assert told["predicted_distribution"]["joy"] == 2
    # sure enough: .8 right, .6 wrong, .9 right, .8 wrong, .6 wrong, .7 right, .85 right
    assert told["abstention"] == {"below": 0.55, "coverage": 0.7, "risk": pytest.approx(3 / 7)}
    assert sum(part["rows"] for part in told["reliability"]) == 10
    assert told["risk_coverage"]["steps"][-1] == {"coverage": 1.0, "risk": 0.3}
    assert told["reasoning"]["valid"] == 1.0
    assert to_json({"a": one})["differences"] == []


def test_on_dev_every_row_is_answered_by_the_cut_of_the_other_folds(corpora: Path) -> None:
    shipped = LensCalibration(abstain_below={"goemotions": 0.55})  # fitted on these very rows
    model, rows = StandIn(Calibration({"author": shipped}, risk=0.25)), load_rows("goemotions", "dev", source=corpora)
    one = judge(model, rows, read(model, rows), mode="fast")
    cuts, answered = [], np.zeros(10, dtype=bool)
    for fit, held_out in folds(10):
        cuts.append(fit_abstention(one.confidence[fit], one.correct[fit], 0.25))
        answered[held_out] = one.confidence[held_out] >= cuts[-1]
    assert len(set(cuts)) > 1
    assert one.abstention is not None
    assert (one.abstention.below, one.abstention.cross_fitted) == (pytest.approx(np.mean(cuts)), True)
    assert one.abstention.answered.tolist() == answered.tolist() != (one.confidence >= 0.55).tolist()
    told = to_json({"a": one})["models"][0]["abstention"]
    assert (told["coverage"], told["risk"]) == (answered.mean(), pytest.approx(1 - one.correct[answered].mean()))
    said = f"Below a confidence of {np.mean(cuts):.3f} it abstains (the mean of five cuts, each of which decides"
    assert said in abstention_words("a", 0.1, one)


def test_every_headline_figure_but_the_speed_has_an_interval(corpora: Path) -> None:
    one = judged(corpora, protocol="goemotions", mode="fast")
    *figures, speed = headline(one)
    assert [name for name, _, _ in figures] == [
        "accuracy", "macro-F1", "weighted F1", "among the top five", "wrongly neutral", "calibration error",
        "loss in nats",
    ]  # fmt: skip
    for name, value, remark in figures:
        low, high = map(float, remark.split(" to "))
        assert low <= float(value) <= high, name
    assert speed[2] == "fast mode"


def test_fast_mode_says_nothing_of_reasoning(corpora: Path, tmp_path: Path) -> None:
    write_report([judged(corpora, mode="fast")], tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["models"][0]["reasoning"] is None
    assert "Reasoning quality" not in check_page(tmp_path / "report.html").text


@pytest.mark.parametrize("text", ["Leave me alone", "Leave me alone, all of you, until the morning comes"])
def test_explain_mode_tells_how_good_the_reasoning_is(corpora: Path, text: str) -> None:
    """Nothing is erased from texts that are too short for it, and then there are dashes."""
    path = corpora / "goemotions" / "test.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("Leave me alone", text), encoding="utf-8")
    model = StandIn()
    model.known[text] = model.known["Leave me alone"]
    one = judged(corpora, model)
    told = document.as_markdown(reasoning_blocks({"a": one}))
    quality = one.evaluation.reasoning_quality
    assert quality is not None
    assert quality.argued is not None
    assert quality.argued_interval is not None
    assert (quality.erasure is None) == (text == "Leave me alone")
    lost, gain = "–", "–"
    if quality.erasure is not None:
        lost, gain = f"{quality.erasure.random_sufficiency:.3f}", document.between(quality.erasure.sufficiency_gain)
    argued = f"argues for the label given, by another model's judgement | {quality.argued:.3f} |"
    assert f"| {argued}\n| ... 95 % interval | {document.between(quality.argued_interval)} |" in told
    assert f"| ... of random words | {lost} |\n| ... 95 % interval of the difference | {gain} |\n\n" in told


def test_models_stand_side_by_side(corpora: Path, tmp_path: Path) -> None:
    worse = StandIn()
    worse.known = {text: np.roll(found, 1) for text, found in worse.known.items()}
    write_report([judged(corpora), judged(corpora, worse)], tmp_path)
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    first, second = told["models"]
    assert (first["name"], second["name"]) == ("stand-in", "stand-in (2)")
    (difference,) = told["differences"]
    assert difference["accuracy"] == pytest.approx(second["accuracy"] - first["accuracy"])
    assert difference["interval"][0] <= difference["accuracy"] <= difference["interval"][1]
    page = check_page(tmp_path / "report.html")
    assert "stand-in (2) less stand-in" in page.text
    check_picture((tmp_path / "confusion_matrix_normalised_2.png").read_bytes())


def test_markdown_keeps_its_tables_whatever_the_words(tmp_path: Path) -> None:
    table = document.Table(("a|b", "n"), [("x | <b>\ny", 0.5), ("*z*", None)])
    points, secret = document.Points(["a\nb", "<c>"]), document.Table(("t",), [("secret",)], foreign=True)
    document.write_markdown(tmp_path / "r.md", "T", [table, secret, points])
    assert (tmp_path / "r.md").read_text(encoding="utf-8") == (
        "# T\n\n| a\\|b | n |\n| --- | --- |\n| x \\| \\<b\\> y | 0.500 |\n| \\*z\\* | – |\n\n- a b\n- \\<c\\>\n"
    )


def test_the_same_figures_give_the_same_bytes() -> None:
    first, second = (plots.bars({"": {"joy": 3, "anger": 1}}, "t", "texts") for _ in range(2))
    assert first == second
    assert first.light != first.dark


@pytest.mark.parametrize("count", [4, 28, 32])
def test_labels_do_not_cover_each_other(count: int) -> None:
    labels = [f"disappointment{n}" for n in range(count)]
    map_ = plots.matrix_map(np.eye(count), (labels, labels), "t", ("a", "b"), shares=True)
    with Image.open(io.BytesIO(map_.light)) as image:
        assert min(image.size) / count > 40  # pixels a label; its letters are about 18 high
    check_picture(map_.dark)


# The command


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The stand-in in the place of every model; the names that were asked for."""
    asked: list[str | None] = []

    @contextmanager
    def open_stand_in(settings: object) -> Iterator[StandIn]:
        asked.append(getattr(settings, "model", None))
        yield StandIn()

    monkeypatch.setattr("toolkit.evaluation.commands.open_model", open_stand_in)
    return asked


def test_evaluate_reports_and_compares(
    corpora: Path, tmp_path: Path, opened: list[str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", "sentiment", "--source", str(corpora), "--mode", "fast", "--json"]
    assert main([*asked, "--compare", "other.gguf", "--report", str(tmp_path / "new" / "out")]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["n"] == found["compared"][0]["n"] == 10
    assert opened == [None, "other.gguf"]
    assert "report.html" in told.err
    check_page(tmp_path / "new" / "out" / "report.html")
    assert "compared" not in json.loads(run(asked, capsys))


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_what_stops_a_report_is_said_before_the_work(
    corpora: Path, tmp_path: Path, opened: list[str | None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = ["evaluate", "sentiment", "--source", str(corpora), "--report"]
    (tmp_path / "file").touch()
    assert main([*asked, str(tmp_path / "file")]) == 2
    assert main([*asked, str(tmp_path / "file" / "out")]) == 1
    assert "A file stands where a folder is needed" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main([*asked, str(tmp_path / "out")]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err
    assert opened == []
    with pytest.raises(EmotionLRMError, match="needs the package matplotlib"):
        write_report([], tmp_path)


def test_a_full_report_of_the_real_labels(corpora: Path, tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    rows = load_rows("goemotions", "dev", source=corpora)  # cross-fitted, and no abstention
    model = stand_in()
    write_report([judge(model, rows, read(model, rows), mode="fast")], tmp_path)
    text = check_page(tmp_path / "report.html").text
    assert "fitted on the other four of five folds" in text
    assert "No abstention ships for these labels." in text
