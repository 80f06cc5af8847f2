"""Examples survive the way through JSON lines; damage is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.jsonl import read_examples, write_examples
from toolkit.errors import DataError

GOOD = '{"text": "a", "labels": ["joy"]}'


def test_everything_comes_back(tmp_path: Path) -> None:
    examples = [
        Example("I’m “fine” \u2028 ok", ("joy", "love"), id="1", soft={"joy": 0.75, "love": 0.25}, weight=0.5),
        Example("Alone again.", ("lonely",), Lens.READER, "2", reasoning="The word “Alone” says so."),
    ]
    assert write_examples(tmp_path / "x.jsonl", examples) == 2
    assert list(read_examples(tmp_path / "x.jsonl")) == examples


def test_blank_lines_and_further_keys_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('\n{"text": "a", "labels": ["joy"], "note": 1}\n\n', encoding="utf-8")
    assert [e.labels for e in read_examples(path)] == [("joy",)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '{"labels": ["joy"]}',
        '{"text": "a"}',
        '{"text": "a", "labels": []}',
        '{"text": "a", "labels": "joy"}',
        '{"text": "a", "labels": ["happy"]}',
        '{"text": 1, "labels": ["joy"]}',
        '{"text": "a", "labels": ["joy"], "lens": "nobody"}',
        '{"text": "a", "labels": ["joy"], "soft": {"happy": 1}}',
        '{"text": "a", "labels": ["joy"], "soft": [1]}',
        '{"text": "a", "labels": ["joy"], "weight": "much"}',
        '{"text": "a", "labels": ["joy"], "reasoning": 3}',
        '{"text": "a", "labels": ["joy"], "text',
        '{"text": "\udcff", "labels": ["joy"]}',
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{GOOD}\n{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2"):
        list(read_examples(path))


def test_a_missing_file_is_an_expected_failure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot read"):
        list(read_examples(tmp_path / "none.jsonl"))


def test_an_iterator_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old", encoding="utf-8")

    def broken() -> object:
        yield Example("a", ("joy",))
        raise DataError("damaged")

    with pytest.raises(DataError):
        write_examples(path, broken())  # type: ignore[arg-type]
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]
