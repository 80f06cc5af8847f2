"""The pictures and the page are drawn from the true file formats, and what is missing is named."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora import page
from toolkit.corpora.commands import data
from toolkit.corpora.explore import AUTHOR, PAGE, READER, take_census
from toolkit.corpora.tables import Damage
from toolkit.errors import ConfigError, DataError

AUTHOR_FILES = ["goemotions_author_distribution.png", "goemotions_balanced_distribution.png"]
PNG = b"\x89PNG\r\n\x1a\n"
EXAMPLES = [
    Example("Thank you so much", ("gratitude", "love")),
    Example("Thanks", ("gratitude",)),
    Example("It opens at nine", ("neutral",)),
    Example("It shuts at ten", ("neutral",)),
    Example("I doubt it", ("confusion",)),
]


@pytest.fixture
def both(source: Path) -> Path:
    folder = source / "empathetic"
    folder.mkdir()
    with gzip.open(folder / "situations_train.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("conv_id\temotion\tsituation\nc:1\tproud\tMy son sang alone.\nc:2\tlonely\tNobody wrote.\nbad\n")
    return source


def test_a_census_counts_labels_lengths_and_pairs() -> None:
    census = take_census(EXAMPLES, "goemotions", Damage())
    assert census.texts == 5
    assert +census.labels == Counter(gratitude=2, neutral=2, love=1, confusion=1)
    assert census.lengths == {4: 3, 1: 1, 3: 1}
    place = census.taxonomy.index
    shares = census.conditional()
    assert shares[place("gratitude"), place("love")] == 0.5
    assert shares[place("love"), place("gratitude")] == 1.0
    assert np.isfinite(shares).all()


def test_shared_labels_take_single_ones_and_the_cap_binds_neutral() -> None:
    census = take_census(EXAMPLES, "goemotions", Damage())
    assert {k: n for k, n in census.shared().items() if n} == {"gratitude": 1, "neutral": 2}
    assert {k: n for k, n in census.shared(cap=1).items() if n} == {"gratitude": 1, "neutral": 1}
    reader = take_census([Example("He sang", ("joyful",), Lens.READER)], "empathetic", Damage())
    assert reader.shared()["joy"] == 1


def test_all_pictures_and_the_page_are_written_and_the_same_twice(both: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        result = CliRunner().invoke(data, ["explore", "--source", str(both), "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        runs.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert runs[0] == runs[1]
    summary = json.loads(result.stdout)
    assert summary["texts"] == {AUTHOR: 107, READER: 2}
    assert (summary["missing"], summary["damaged_rows"]) == ([], 1)
    assert "1 damaged rows were passed over" in result.stderr
    pictures = {name for name in runs[0] if name.endswith(".png")}
    further = {"empathetic_reader_distribution.png", "text_length_distribution.png", "goemotions_cooccurrence.png"}
    assert pictures == {*AUTHOR_FILES, *further}
    assert all(runs[0][name].startswith(PNG) for name in pictures)
    html = runs[0][PAGE].decode()
    assert html.count("data:image/png;base64,") == len(pictures)
    assert "http" not in html.replace("http-equiv", "")
    assert "damaged rows, the first of them" in html
    assert "situations_train.tsv.gz, line 4, has 1 columns where the header has 3." in html


def test_one_corpus_is_enough_and_none_is_an_expected_failure(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(data, ["explore", "--source", str(source), "--out", str(out), "--limit", "30"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["texts"] == {AUTHOR: 30}
    assert "EmpatheticDialogues, situations: no train split there" in result.stderr
    assert not (out / "empathetic_reader_distribution.png").exists()
    monkeypatch.setenv("EMOTION_LRM_CORPORA", str(out))
    with pytest.raises(DataError, match=rf"{re.escape(str(out))} holds the train split of neither corpus"):
        CliRunner().invoke(data, ["explore", "--out", str(out)], catch_exceptions=False)


def test_the_cap_comes_from_the_configuration(source: Path, tmp_path: Path) -> None:
    config, pages, pictures = tmp_path / "c.yaml", [], []
    for cap in ("null", "5"):
        config.write_text(f"neutral: {{cap: {cap}}}", encoding="utf-8")
        arguments = ["explore", "--source", str(source), "--out", str(tmp_path / cap), "--config", str(config)]
        result = CliRunner().invoke(data, arguments)
        assert result.exit_code == 0, result.output
        pages.append((tmp_path / cap / PAGE).read_text(encoding="utf-8"))
        pictures.append([(tmp_path / cap / name).read_bytes() for name in AUTHOR_FILES])
    assert "at most 10,000 of them neutral" in pages[0]
    assert "at most 5 of them neutral" in pages[1]
    assert pictures[0][0] == pictures[1][0]
    assert pictures[0][1] != pictures[1][1]
    config.write_text("neutral: {cpa: 5}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.yaml has an unknown key 'neutral\.cpa'"):
        CliRunner().invoke(data, arguments, catch_exceptions=False)


def test_nothing_in_a_corpus_text_becomes_markup(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>\u202e\x00 & "quotes"'
    page.write_page(
        tmp_path / "x.html",
        hostile,
        [page.table(("text", "list"), [(hostile, [hostile, hostile])]), page.paragraph(hostile)],
    )
    html = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\x00" not in html
    assert html.count("&lt;script&gt;") == 6
