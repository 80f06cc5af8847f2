"""`batch --report` and `batch --lens both`: counts by hand, dates as people write them, memory that stays bounded."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from toolkit.apps import overview as overview_module
from toolkit.apps.batch import run_batch
from toolkit.apps.batch_report import FEWEST_TEXTS, SHOWN_PAIRS, BatchReport, to_json, write_batch_report
from toolkit.apps.both import pair_of
from toolkit.apps.overview import KEPT, KEPT_OF_A_PAIR, Extremes, Overview, Parting
from toolkit.apps.periods import MOST_PERIODS, Timeline, find_dates, read_dates
from toolkit.apps.tables import open_table
from toolkit.cli import main
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError, ModelError, UsageError
from toolkit.inference.divergence import compare

Make = Callable[..., Analysis]
HOSTILE = "<script>alert(1)</script> \u202eevil & <img src=x onerror=y>"


def seen(text: str, lens: Lens, taxonomy: str, mode: str, **given: float) -> Analysis:
    """A reading with the scores given; the rest of the mass goes to the last label that is not named."""
    labels = load_taxonomy(taxonomy).labels
    scores = dict.fromkeys(labels, 0.0) | given
    scores[next(label for label in reversed(labels) if label not in given)] += 1 - sum(given.values())
    emotion = max(scores, key=lambda label: scores[label])
    sure = scores[emotion]
    return Analysis(
        text, lens, taxonomy, mode, emotion, emotion, sure, sure < 0.5, (emotion,), scores, 0.99, 0.0, None, (), "two"
    )


class TwoLenses:
    """A model of both lenses: sad texts look sad through both, proud ones proud or afraid."""

    name, noise_line, lenses = "two", 0.1, tuple(Lens)

    def analyze_many(self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str) -> Iterator[Analysis]:
        for text in texts:
            if "fail" in text:
                raise ModelError(f"Cannot read {text}.", "Try another.")
            author, reader = ("sadness", "sad") if "sad" in text else ("pride", "afraid")
            own = taxonomy or lens.native
            given = {author if lens is Lens.AUTHOR else "fear" if own == "shared10" else reader: 0.9}
            yield seen(text, lens, own, mode, **given)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of both lenses in the place of the worker processes."""

    @contextmanager
    def opened(*_: Any) -> Iterator[TwoLenses]:
        yield TwoLenses()

    monkeypatch.setattr("toolkit.apps.batch.open_workers", opened)
    monkeypatch.setenv("EMOTION_LRM_MODE", "fast")


def record(row: int, text: str, confidence: float, label: str = "joy", abstained: bool = False) -> dict[str, Any]:
    return {
        "id": row, "row": row, "status": "ok", "error": None, "text": text, "lens": "author", "taxonomy": "goemotions",
        "emotion": label, "confidence": confidence, "abstained": abstained,
    }  # fmt: skip


def read_out(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def check_report(folder: Path) -> tuple[str, dict[str, Any]]:
    """The page's text and the JSON of a report that is safe and whose pictures hold something."""
    source = (folder / "report.html").read_text(encoding="utf-8")
    page = Tags(source)
    assert "script" not in page.tags
    assert "http:" not in source
    assert "https:" not in source
    assert "\u202e" not in source
    for path in folder.glob("*.png"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            colours = image.convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert max(count for count, _ in colours) < 0.995 * sum(count for count, _ in colours)
    return page.text, json.loads((folder / "report.json").read_text(encoding="utf-8"))


# Dates


@pytest.mark.parametrize(
    ("cells", "form", "first"),
    [
        (["2024-03-05", "2024-03-06T10:00:00"], "year-month-day", date(2024, 3, 5)),
        (["2024-03-05T23:30:00-05:00"], "year-month-day", date(2024, 3, 6)),
        (["2024-03", "2024-04"], "year-month", date(2024, 3, 1)),
        (["3/5/2024 3:04 PM", "3/25/2024"], "month/day/year", date(2024, 3, 5)),
        (["5/3/2024", "25/3/2024"], "day/month/year", date(2024, 3, 5)),
        (["5.3.2024"], "day.month.year", date(2024, 3, 5)),
        (["1709596800"], "seconds since 1970", date(2024, 3, 5)),
        (["1709596800000"], "seconds since 1970", date(2024, 3, 5)),
        (["Tue, 5 Mar 2024 10:00:00 +0000"], "as in e-mail", date(2024, 3, 5)),
    ],
)
def test_dates_are_read_as_people_write_them(tmp_path: Path, cells: list[str], form: str, first: date) -> None:
    with open(tmp_path / "in.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("created_at", "text"), *((cell, "a text") for cell in cells), ("", "undated")])
    table = open_table(tmp_path / "in.csv")
    found = find_dates(table, None)
    assert found is not None
    assert found.form == form
    days = list(read_dates(table, found))
    assert (days[0], days[-1], len(days)) == (first, None, len(cells) + 1)


def test_only_a_column_that_holds_dates_is_taken(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("time,when,text\nlong,2024-03-05,a\nshort,2024-03-06,b\n", encoding="utf-8")
    table = open_table(tmp_path / "in.csv")
    assert find_dates(table, None) is None
    named = find_dates(table, "when")
    assert named is not None
    assert list(read_dates(table, named)) == [date(2024, 3, 5), date(2024, 3, 6)]
    with pytest.raises(DataError, match="The column time holds no dates"):
        find_dates(table, "time")
    with pytest.raises(UsageError, match="no column 'day'"):
        find_dates(table, "day")


def test_periods_grow_coarser_and_stay_few() -> None:
    line = Timeline()
    for day in range(1, 29):
        line.add(date(2024, 2, day), "joy")
    assert (line.unit, len(line.periods)) == ("day", 28)
    for year in range(1900, 2024):
        line.add(date(year, 7, 1), "anger")
        assert len(line.periods) <= max(MOST_PERIODS, 124 + 1)
    assert line.unit == "year"
    assert line.periods["2024"] == {"joy": 28}


def test_a_period_without_texts_is_shown_empty() -> None:
    line = Timeline()
    for day in (date(2024, 2, 28), date(2024, 3, 2)):
        line.add(day, "joy")
    assert line.in_order() == ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"]
    line.add(date(1900, 1, 1), "joy")
    assert line.in_order() == ["1900-01-01", "2024-02-28", "2024-03-02"]  # too many to draw in between


# Counts


def test_counts_by_hand() -> None:
    found = Overview()
    found.add(record(0, "a", 0.95), date(2024, 1, 1))
    found.add(record(1, "b", 0.2, "anger", abstained=True))
    found.add(record(2, "a", 0.95))
    found.add({"row": 3, "status": "empty", "error": None})
    found.add({"row": 4, "status": "error", "error": "no"})
    told = to_json(found, None)
    assert (told["rows"], told["status"], told["dated"]) == (5, {"ok": 3, "empty": 1, "error": 1}, 1)
    (view,) = told["lenses"]
    assert (view["texts"], view["abstained"], view["labels"]) == (3, 1, {"joy": 2, "anger": 1})
    assert [row["row"] for row in view["most_certain"]] == [0, 1]  # the same text stands there once
    assert [row["row"] for row in view["least_certain"]] == [1, 0]
    assert (view["confidence"]["texts"][19], view["confidence"]["texts"][4]) == (2, 1)
    assert "text" not in view["most_certain"][0]


def test_the_extremes_are_those_of_the_whole_run_and_few() -> None:
    values = [n / 5000 for n in range(5000)]
    random.Random(1).shuffle(values)
    high, low = Extremes(), Extremes(-1)
    for row, value in enumerate(values):
        for kept in (high, low):
            kept.add(value, row, f"text {value} " + "x" * 1000, sure=value)
            assert len(kept._heap) == len(kept._texts) <= KEPT
    assert [row["sure"] for row in high.rows()] == sorted(values, reverse=True)[:KEPT]
    assert [row["sure"] for row in low.rows()] == sorted(values)[:KEPT]
    assert all(len(row["text"]) < 500 for row in high.rows())


def test_rows_are_surveyed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = 0

    class Record(dict[str, Any]):
        def __init__(self, *args: Any) -> None:
            nonlocal alive
            super().__init__(*args)
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(overview_module, "KEPT", 3)
    most = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal most
        for row in range(2_000):
            most = max(most, alive)
            yield Record(record(row, f"text {row}", (row * 7 % 1000) / 1000))

    found = Overview()
    found.add_all(rows())
    assert (found.tally.rows, most) == (2_000, 1)


# The command


def test_a_report_of_one_lens(command: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    with open(tmp_path / "in.csv", "w", encoding="utf-8", newline="") as file:
        rows = [("2024-01-01", f"so sad {HOSTILE}"), ("2024-01-02", "done it"), ("", "proud"), ("2024-01-02", "")]
        csv.writer(file).writerows([("date", "text"), *rows, ("2024-01-03", "it fails")])
    asked = ["batch", str(tmp_path / "in.csv"), "-o", str(tmp_path / "o.parquet")]
    assert main([*asked, "--report", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "Date column: date, as year-month-day (found" in told
    assert "report.html" in told
    text, found = check_report(tmp_path / "out")
    assert HOSTILE.replace("\u202e", "\ufffd") in text
    assert "Texts without a date that can be read: 1." in text
    assert found["status"] == {"ok": 3, "empty": 1, "error": 1}
    assert found["lenses"][0]["over_time"]["periods"] == {"2024-01-01": {"sadness": 1}, "2024-01-02": {"pride": 1}}
    assert found["divergence"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "report.json", "label_distribution.png", "over_time.png", "confidence.png",
    }  # fmt: skip
    assert "script" not in (tmp_path / "out" / "report.json").read_text(encoding="utf-8")


def test_a_date_column_without_a_report_is_refused(
    command: None,  # noqa: ARG001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    assert main(["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "o.jsonl"), "--date-column", "d"]) == 2
    assert "--date-column is for the report alone" in capsys.readouterr().err


def test_nothing_but_empty_rows_still_has_a_report(command: None, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "in.txt").write_text("\n \n", encoding="utf-8")
    asked = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "o.jsonl")]
    assert main([*asked, "--report", str(tmp_path / "out")]) == 0
    assert check_report(tmp_path / "out")[1]["lenses"] == []


def test_both_lenses_give_a_row_for_every_row(command: None, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "in.csv").write_text("id,text\na,so sad\nb,\nc,it fails\nd,done it\n", encoding="utf-8")
    out = tmp_path / "o.jsonl"
    asked = ["batch", str(tmp_path / "in.csv"), "-o", str(out), "--lens", "both"]
    assert main([*asked, "--report", str(tmp_path / "out")]) == 3
    rows = read_out(out)
    keys = ["id", "row", "status", "error", "text", "author", "reader", "divergence"]
    assert all(list(row) == keys for row in rows)
    assert [(row["id"], row["row"], row["status"]) for row in rows] == [
        ("a", 0, "ok"), ("b", 1, "empty"), ("c", 2, "error"), ("d", 3, "ok"),
    ]  # fmt: skip
    assert rows[1]["author"] is rows[1]["divergence"] is rows[2]["reader"] is None
    readings = [next(TwoLenses().analyze_many(["so sad"], lens=lens, taxonomy=None, mode="fast")) for lens in Lens]
    assert {key: rows[0][key] for key in keys[4:]} == json.loads(json.dumps(compare(*readings, 0.1).to_dict()))
    text, found = check_report(tmp_path / "out")
    assert [view["labels"] for view in found["lenses"]] == [{"sadness": 1, "pride": 1}, {"sad": 1, "afraid": 1}]
    parting = found["divergence"]
    assert (parting["texts"], parting["above_noise_line"]) == (2, 1)
    assert {(pair["author"], pair["reader"]) for pair in parting["together"]} == {
        ("sadness", "sadness"), ("pride", "fear"),
    }  # fmt: skip
    assert parting["examples"][0]["row"] == 3
    assert "50.0 % of these texts lie above the noise line of 0.10" in text
    assert "contains the difference between these corpora" in text


@pytest.mark.parametrize("taxonomy", [None, "shared10"])
def test_both_lenses_as_tables(tmp_path: Path, taxonomy: str | None) -> None:
    (tmp_path / "in.txt").write_text("so sad\n\ndone it\n", encoding="utf-8")
    table, pair = open_table(tmp_path / "in.txt"), pair_of(taxonomy, "fast")
    for form in ("csv", "parquet"):
        run_batch(TwoLenses(), table, tmp_path / f"o.{form}", wish=pair)
    with open(tmp_path / "o.csv", encoding="utf-8", newline="") as file:
        first, empty, last = csv.DictReader(file)
    assert (first["author_emotion"], empty["author_emotion"], last["author_emotion"]) == ("sadness", "", "pride")
    assert float(last["divergence_score"]) > 0.5
    assert float(first["author_confidence"]) == float(first["author_score_sadness"]) == 0.9
    flat = parquet.read_table(tmp_path / "o.parquet")
    assert flat.column_names == list(first)
    assert flat["reader_emotion"].to_pylist() == [first["reader_emotion"], None, last["reader_emotion"]]
    assert flat.schema.field("divergence_outside_reader").type == "double"
    assert flat.schema.field("reader_abstained").type == "bool"


def test_both_lenses_resume(tmp_path: Path) -> None:
    texts = [f"so sad {n}" for n in range(300)] + [f"fail {n}" for n in range(30)]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    table, out = open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl"
    with pytest.raises(ModelError):
        run_batch(TwoLenses(), table, out, wish=pair_of(None, "fast"))
    with pytest.raises(UsageError, match="another lens: 'author and reader', not"):
        run_batch(TwoLenses(), table, out, wish=pair_of(None, "fast").author, resume=True)

    class Tame(TwoLenses):
        asked = 0

        def analyze_many(self, texts: Iterable[str], **options: Any) -> Iterator[Analysis]:
            for text in texts:
                type(self).asked += 1
                yield next(super().analyze_many([text.replace("fail", "done")], **options))

    said: list[str] = []
    run_batch(Tame(), table, out, wish=pair_of(None, "fast"), resume=True, say=lambda *lines: said.extend(lines))
    assert said[0] == "Resuming after 256 of 330 rows."
    assert Tame.asked == 2 * (330 - 256)
    assert [row["row"] for row in read_out(out)] == list(range(330))


def test_a_model_of_one_lens_is_refused_before_the_work(tmp_path: Path) -> None:
    class Author(TwoLenses):
        lenses = (Lens.AUTHOR,)

    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(UsageError, match="The model two has not learned the lens reader"):
        run_batch(Author(), open_table(tmp_path / "in.txt"), tmp_path / "o.jsonl", wish=pair_of(None, "fast"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt"}


@pytest.mark.real
def test_the_shipped_model_says_that_it_has_one_lens(
    default_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    asked = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "o.jsonl"), "--lens", "both"]
    assert main([*asked, "--model", str(default_model_path), "--threads", "1"]) == 2
    assert "has not learned the lens reader" in capsys.readouterr().err
    assert main([*asked, "--taxonomy", "ekman"]) == 2
    assert "Both lenses together cannot answer" in capsys.readouterr().err


def test_the_noise_line_is_not_made_up(tmp_path: Path) -> None:
    class Unmeasured(TwoLenses):
        noise_line = None  # type: ignore[assignment]

    (tmp_path / "in.txt").write_text("so sad\ndone it\n", encoding="utf-8")
    table = open_table(tmp_path / "in.txt")
    report = BatchReport(table, tmp_path / "out")
    run_batch(Unmeasured(), table, tmp_path / "o.jsonl", wish=pair_of(None, "fast"), survey=report.survey)
    report.write()
    text, found = check_report(tmp_path / "out")
    assert "How much of the divergence is noise was not measured for this model." in text
    assert found["divergence"]["above_noise_line"] is None


def test_texts_that_cannot_be_compared_are_counted_apart(tmp_path: Path) -> None:
    neutral = seen("x", Lens.AUTHOR, "goemotions", "fast", neutral=0.95)
    sad = seen("x", Lens.READER, "empathetic", "fast", sad=0.9)
    told = dataclasses.asdict(compare(neutral, sad, 0.1).divergence)
    found = Overview()
    found.add(
        {"row": 0, "status": "ok", "error": None, "text": "x", "author": neutral.to_dict(), "reader": sad.to_dict(),
         "divergence": told}
    )  # fmt: skip
    write_batch_report(found, "t", tmp_path)
    text, _ = check_report(tmp_path)
    assert "On 0 of 1 texts the lenses can be compared" in text


def parted(counts: dict[tuple[str, str], list[float]]) -> Overview:
    """What was counted where both lenses leaned to these labels with these divergences."""
    found, row = Overview(parting=Parting()), 0
    assert found.parting is not None
    for (author, reader), scores in counts.items():
        for score in scores:
            told = {"author_emotion": author, "reader_emotion": reader, "score": score, "noise_line": 0.1}
            found.parting.add(told, row, f"text {row}")
            row += 1
    return found


def test_a_label_of_few_texts_leads_no_ranking(tmp_path: Path) -> None:
    few = {("pride", "fear"): [0.9] * (FEWEST_TEXTS - 1), ("joy", "fear"): [0.95]}
    enough = {("anger", "fear"): [0.3] * FEWEST_TEXTS, ("sadness", "sadness"): [0.2] * FEWEST_TEXTS}
    found = parted(few | enough)
    ranked = to_json(found, None)["divergence"]["by_author_label"]
    assert [(label, told["texts"]) for label, told in ranked.items()] == [
        ("anger", 5), ("sadness", 5), ("joy", 1), ("pride", 4),
    ]  # fmt: skip
    write_batch_report(found, "t", tmp_path)
    assert "Labels with fewer than 5 texts stand last" in check_report(tmp_path)[0]
    assert list(to_json(parted(few), None)["divergence"]["by_author_label"]) == ["joy", "pride"]
    write_batch_report(parted(few), "t", tmp_path)
    assert "stand last" not in check_report(tmp_path)[0]


def test_examples_are_of_the_pairs_that_part_most_often(tmp_path: Path) -> None:
    often, once = {("anger", "fear"): [0.3, 0.5, 0.4], ("joy", "love"): [0.2, 0.1]}, {("pride", "fear"): [0.9]}
    found = parted({**once, ("sadness", "sadness"): [0.95] * 9, **often})
    examples = to_json(found, None)["divergence"]["examples"]
    assert [(one["author"], one["score"]) for one in examples] == [
        ("anger", 0.5), ("anger", 0.4), ("joy", 0.2), ("joy", 0.1), ("pride", 0.9),
    ]  # fmt: skip
    write_batch_report(found, "t", tmp_path)
    text, _ = check_report(tmp_path)
    assert "where they part most often" in text
    assert "text 11" in text  # anger and fear, .5
    labels = ("joy", "anger", "fear", "love", "pride", "disgust", "surprise")
    many = parted({(labels[0], label): [0.5] * 3 for label in labels[1:]})
    assert len(to_json(many, None)["divergence"]["examples"]) == SHOWN_PAIRS * KEPT_OF_A_PAIR


def test_lenses_that_never_part_have_no_examples(tmp_path: Path) -> None:
    found = parted({("sadness", "sadness"): [0.2]})
    write_batch_report(found, "t", tmp_path)
    text, told = check_report(tmp_path)
    assert told["divergence"]["examples"] == []
    assert "where they part most often" not in text
