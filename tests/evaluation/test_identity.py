"""What naming an identity does to a reading: the arithmetic by hand, and the model that ships."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from toolkit.assets import asset
from toolkit.cli import main
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import document
from toolkit.evaluation.identity import IdentityTerms, effect_blocks, fill, load_terms, mean_interval, term_effects

TERMS = IdentityTerms(
    plain="a person",
    templates=["Here is {a}.", "The {the} left.", "I saw {a}.", "My {the} called."],
    controls=["a plumber", "a baker"],
    groups={"age": ["an elder", "a youth"]},
)
MOVED = {
    "Here is an elder.": {"joy": 0.4, "anger": 0.6},
    "I saw an elder.": {"joy": 0.8, "anger": 0.2},
    "Here is a plumber.": {"joy": 0.9, "love": 0.1},
    "The baker left.": {"joy": 0.7, "relief": 0.3},
}


class Leaning:
    """Reads every sentence as joy alone, but those that stand in ``MOVED``."""

    name = "leaning"

    def posteriors(self, texts: list[str], *, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
        labels = load_taxonomy(lens.native).labels
        found = [[MOVED.get(text, {"joy": 1.0}).get(label, 0.0) for label in labels] for text in texts]
        return np.array(found), np.ones(len(texts))


def test_the_article_goes_where_the_sentence_has_one_of_its_own() -> None:
    assert fill("Here is {a}.", "an elder") == "Here is an elder."
    assert fill("The {the} left.", "a wheelchair user") == "The wheelchair user left."


def test_the_effects_of_a_term_by_hand() -> None:
    leaning: Any = Leaning()
    effects = term_effects(leaning, Lens.AUTHOR, TERMS)
    elder, youth = effects.terms
    assert (elder.group, elder.term) == ("age", "elder")
    # shifts .6, 0, .2, 0; the controls' means .05, .15, 0, 0; what is left .55, -.15, .2, 0
    assert (elder.shift, elder.flips, elder.negative, elder.excess) == pytest.approx((0.2, 1 / 4, 0.2, 0.15))
    assert (youth.shift, youth.flips, youth.negative, youth.excess) == pytest.approx((0, 0, 0, -0.05))
    # Student's t with 3 degrees of freedom is within 4.1765 with probability 1 - .05 / 2
    reach = 4.1765 * np.array([(0.24 / 3 / 4) ** 0.5, (0.275 / 3 / 4) ** 0.5])
    assert elder.interval == pytest.approx((0.2 - reach[0], 0.2 + reach[0]), abs=1e-4)
    assert elder.excess_interval == pytest.approx((0.15 - reach[1], 0.15 + reach[1]), abs=1e-4)


def test_the_means_of_groups_and_controls_by_hand() -> None:
    leaning: Any = Leaning()
    told = term_effects(leaning, Lens.AUTHOR, TERMS).to_dict()
    means = {"shift": 0.1, "flips": 0.125, "excess": 0.05}
    assert told["groups"] == {"age": pytest.approx(means)}
    assert {key: told[key] for key in means} == pytest.approx(means)
    controls = told["controls"]
    assert (controls["shift"], controls["flips"]) == pytest.approx((0.05, 0))
    assert [(one["term"], one["shift"], one["interval"]) for one in controls["terms"]] == [
        ("plumber", 0.025, None), ("baker", 0.075, None),
    ]  # fmt: skip
    assert told["correction"] == "Bonferroni, 2 terms"


def test_chance_alone_seldom_makes_any_of_many_terms_differ() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, (400, 32, 20))  # runs, terms, sentences

    def runs_that_name_one(compared: int) -> float:
        intervals = [[mean_interval(term, compared) for term in run] for run in values]
        return float(np.mean([any(low > 0 or high < 0 for low, high in run) for run in intervals]))

    assert runs_that_name_one(1) > 0.7
    assert runs_that_name_one(32) < 0.09


@pytest.mark.parametrize("compared", [1, 2, 32])
@pytest.mark.parametrize("n", [2, 4, 20])
def test_scipy_agrees_on_the_interval_of_a_mean(n: int, compared: int) -> None:
    values = np.random.default_rng(n).normal(0.1, 0.2, n)
    expected = stats.t.interval(1 - 0.05 / compared, n - 1, values.mean(), stats.sem(values))
    assert mean_interval(values, compared) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_reader_has_no_negative_labels() -> None:
    leaning: Any = Leaning()
    effects = term_effects(leaning, Lens.READER, TERMS)
    assert {(one.negative, one.interval) for one in effects.terms} == {(None, None)}
    assert "negative" not in document.as_markdown(effect_blocks(effects, "m"))


def test_every_sentence_that_ships_names_the_person_once() -> None:
    terms = load_terms()
    for template in terms.templates:
        assert template.count("{a}") + template.count("{the}") == 1
    assert all(term.startswith(("a ", "an ")) for group in terms.groups.values() for term in group)


def test_there_are_32_terms_and_controls_beside_them() -> None:
    terms = load_terms()
    every = [term for group in terms.groups.values() for term in group]
    assert (len(every), len(terms.controls)) == (32, 8)
    assert len({terms.plain, *every, *terms.controls}) == 1 + 32 + 8


@pytest.fixture(scope="module")
def measured(default_model: Any) -> dict[str, Any]:
    """The default model's effects as the command tells them."""
    return term_effects(default_model, Lens.AUTHOR).to_dict()


def test_the_default_model_moves_as_its_card_says(measured: dict[str, Any]) -> None:
    card = json.loads(asset("models", "adapters", "author", "metrics.json").read_text(encoding="utf-8"))
    written = card["identity_terms"]
    assert measured["shift"] == pytest.approx(written["shift"], abs=0.02)
    assert measured["flips"] == pytest.approx(written["flips"], abs=0.03)
    assert measured["controls"]["shift"] == pytest.approx(written["controls_shift"], abs=0.02)
    assert measured["controls"]["flips"] == pytest.approx(written["controls_flips"], abs=0.03)


def test_the_default_model_moves_more_where_the_feeling_changes(default_model: Any, measured: dict[str, Any]) -> None:
    """And not at all where nothing does."""
    felt = {"same": ["a person"], "felt": ["a furious person", "a heartbroken person", "a delighted person"]}
    groups = term_effects(default_model, Lens.AUTHOR, load_terms().model_copy(update={"groups": felt})).groups()
    assert groups["same"]["shift"] == pytest.approx(0, abs=1e-3)
    assert groups["felt"]["shift"] > 2 * max(group["shift"] for group in measured["groups"].values())


def test_the_command_prints_a_line_for_every_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaning: Any = Leaning()
    monkeypatch.setattr("toolkit.evaluation.commands.open_model", lambda _: nullcontext(leaning))
    assert main(["evaluate", "identity-terms", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["term"] for row in told["terms"]} >= {"woman", "wheelchair user", "atheist"}
    assert set(told) == {"model", "lens", "shift", "flips", "excess", "controls", "groups", "correction", "terms"}
    assert told["correction"] == "Bonferroni, 32 terms"
    assert main(["evaluate", "identity-terms", "--report", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^ ?disability +wheelchair user +0\.000   0\.000   \+0\.000   \+0\.000 to \+0\.000", table, re.M)
    assert re.search(r"^ ?disability +wheelchair user +\+0\.000   \+0\.000 to \+0\.000", table, re.M)
    assert re.search(r"^ ?controls +plumber +0\.000   0\.000   \+0\.000   –", table, re.M)
    assert re.search(r"^ ?controls +0\.000   0\.000   \+0\.000", table, re.M)
    assert "Bonferroni, 32" in table
    assert all(len(line) <= 80 for line in table.splitlines())
    assert json.loads((tmp_path / "report.json").read_text()) == told
    assert "| disability | wheelchair user | 0.000 | 0.000 | +0.000 | +0.000 to +0.000 |" in (
        (tmp_path / "report.md").read_text()
    )
    assert ">wheelchair user</td>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "identity_terms.png").is_file()
    assert main(["evaluate", "identity-terms", "--limit", "3"]) == 2
