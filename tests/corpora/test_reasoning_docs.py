"""The chains that docs/reasoning.md shows are those that the code writes today."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from toolkit.corpora.commands import data

PAGE = Path(__file__).parents[2] / "docs" / "reasoning.md"


def test_the_thirty_chains_are_what_the_command_beside_them_prints(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "    emotion-lrm data cot --samples --show 30\n" in text
    result = CliRunner().invoke(data, ["cot", "--samples", "--show", "30", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.strip().splitlines()
    verdicts = [line.split("|")[-2].strip() for line in lines[2:]]
    assert len(verdicts) == 30
    assert verdicts.count("kept") == 20
    assert all(verdict == "kept" or verdict.startswith("refused: ") for verdict in verdicts)
    assert result.stdout.strip() in text
