"""What docs/cleaning.md tells of the data is what the data holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.linguistic import SCORES, LinguisticConfig
from toolkit.corpora.suspects import EMBEDDED_SCORES

PAGE = Path(__file__).parents[2] / "docs" / "cleaning.md"


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_the_table_of_shared_labels_is_the_data() -> None:
    told = {row[0]: tuple(row[1:]) for row in rows() if row[0] in load_taxonomy("empathetic").labels}
    assert told == {
        entry.name: (entry.maps.get("shared10", "–"), entry.left_out.get("shared10", ""))
        for entry in load_taxonomy("empathetic").entries
    }


def test_every_flag_is_explained_with_the_score_from_which_it_holds() -> None:
    told = {row[0].strip("`"): row for row in rows() if row[0].startswith("`")}
    assert {*SCORES, *EMBEDDED_SCORES} <= set(told)
    for name in SCORES:
        assert float(told[name][2]) == getattr(LinguisticConfig(), name)


@pytest.mark.parametrize("name", SCORES)
def test_the_verdicts_add_up_to_the_figures_and_no_sample_holds_a_text_of_another(name: str) -> None:
    verdicts = {(row[1], row[2]): row[3].split() for row in rows() if row[0] == name}
    cells = next(row for row in rows() if row[0] == f"`{name}`" and len(row) == 7)
    for sample, cell in (("first", cells[4]), ("fresh", cells[5])):
        right, wrong = len(verdicts[sample, "right"]), len(verdicts[sample, "wrong"])
        found = re.fullmatch(r"(\d+) of (\d+) \((\d+) %\)", cell)
        assert found is not None
        assert tuple(map(int, found.groups())) == (right, right + wrong, round(100 * right / (right + wrong)))
    comments = [comment for judged in verdicts.values() for comment in judged]
    assert len(set(comments)) == len(comments)
