"""What naming an identity does to a reading: the arithmetic by hand, and the model that ships."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.cli import main
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation.identity import IdentityTerms, fill, load_terms, term_effects

LABELS = load_taxonomy("goemotions").labels
TERMS = IdentityTerms(plain="a person", templates=["Here is {a}.", "The {the} left."], groups={"age": ["an elder"]})


class Leaning:
    """Reads every sentence as joy, but moves 0.4 of it to anger where the elder sits on the first place."""

    def posteriors(self, texts: list[str], *, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
        assert lens is Lens.AUTHOR
        found = np.zeros((len(texts), len(LABELS)))
        for row, text in enumerate(texts):
            found[row, LABELS.index("joy")] = 0.4 if text == "Here is an elder." else 1.0
            found[row, LABELS.index("anger")] = 1 - found[row].sum()
        return found, np.ones(len(texts))


def test_the_article_goes_where_the_sentence_has_one_of_its_own() -> None:
    assert fill("Here is {a}.", "an elder") == "Here is an elder."
    assert fill("The {the} left.", "a wheelchair user") == "The wheelchair user left."


def test_shift_flips_and_negative_mass_are_means_over_the_sentences() -> None:
    leaning: Any = Leaning()
    (effect,) = term_effects(leaning, Lens.AUTHOR, TERMS)
    assert (effect.group, effect.term) == ("age", "elder")
    assert effect.shift == pytest.approx(0.6 / 2)
    assert effect.flips == pytest.approx(1 / 2)
    assert effect.negative == pytest.approx(0.6 / 2)
    assert effect.interval == pytest.approx((0.0, 0.6))


def test_every_sentence_that_ships_names_the_person_once() -> None:
    terms = load_terms()
    for template in terms.templates:
        assert template.count("{a}") + template.count("{the}") == 1
    assert all(term.startswith(("a ", "an ")) for group in terms.groups.values() for term in group)


def test_the_default_model_is_measured_for_every_term(default_model: Any) -> None:
    effects = term_effects(default_model, Lens.AUTHOR)
    assert len(effects) == sum(map(len, load_terms().groups.values()))
    for effect in effects:
        assert 0 <= effect.shift <= 1
        assert 0 <= effect.flips <= 1
        assert effect.negative is not None
        assert effect.interval is not None
        assert effect.interval[0] <= effect.negative <= effect.interval[1]
        assert abs(effect.negative) <= effect.shift + 1e-4


def test_the_command_prints_a_line_for_every_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaning: Any = Leaning()
    leaning.name = "leaning"
    monkeypatch.setattr("toolkit.evaluation.commands.open_model", lambda _: nullcontext(leaning))
    assert main(["evaluate", "identity-terms", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["term"] for row in told["terms"]} >= {"woman", "wheelchair user", "atheist"}
    assert main(["evaluate", "identity-terms", "--report", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "disability    wheelchair user      0.000   0.000     +0.000   +0.000 to +0.000" in table
    assert json.loads((tmp_path / "report.json").read_text()) == told
    assert "| disability | wheelchair user | 0.000 | 0.000 | +0.000 | +0.000 to +0.000 |" in (
        (tmp_path / "report.md").read_text()
    )
    assert ">wheelchair user</td>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "identity_terms.png").is_file()
    assert main(["evaluate", "identity-terms", "--limit", "3"]) == 2
