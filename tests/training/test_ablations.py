"""Ablations: rows that are valid, exact posteriors in torch, both orders of the answer, a table that resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from toolkit.assets import asset
from toolkit.cli import main
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.errors import ConfigError, DataError
from toolkit.evaluation.ablations import Ablations, markdown, run_ablations, write_report
from toolkit.evaluation.torch_reading import read_posteriors, write_reasonings
from toolkit.inference.transformers_backend import TransformersEngine, TransformersTokenizer
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_training
from toolkit.training.lora import Trainer, prepare
from toolkit.training.objective import collate

TEXTS = ["I won the race today!", "", "Leave me alone, all of you, and do not come back before the morning", "Oh."]


def quiet(*_: object) -> None:
    return None


def trainer_for(workplace: Path, *overrides: str) -> Trainer:
    config = load_config(TrainConfig, workplace / "train.yaml", overrides)
    return prepare(config, load_training(config, None), [])


def plan_for(workplace: Path) -> Path:
    base = yaml.safe_load((workplace / "train.yaml").read_text())
    rows = [
        {"name": "the base", "asks": "nothing."},
        {"name": "restricted", "asks": "is it better?", "set": ["outside_weight=0"]},
        {"name": "reasoning first", "asks": "is it better?", "set": ["reasoning_first=true"]},
    ]
    path = workplace / "ablations.yaml"
    path.write_text(yaml.safe_dump({"base": {**base, "max_steps": 3, "epochs": 1}, "rows": rows}))
    return path


def changed(one: Any, other: Any, path: str = "") -> set[str]:
    """The dotted keys whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key for name in one for key in changed(one[name], other[name], f"{path}.{name}".lstrip("."))}
    return set() if one == other else {path}


def test_the_shipped_rows_are_valid_and_differ_from_the_base_in_one_thing() -> None:
    plan = load_config(Ablations, asset("models", "configs", "ablations.yaml"))
    assert 1 < len(plan.rows) <= 8
    first, *others = plan.configs()
    assert first == plan.base
    assert first.max_steps == 300
    for row, config in zip(plan.rows[1:], others, strict=True):
        # A second corpus comes with as many of its rows.
        allowed = {"data.reader", "data.limit"} if row.name == "two lenses" else {row.set[0].partition("=")[0]}
        assert changed(first.model_dump(), config.model_dump()) == allowed, row.name
    assert {config.outside_weight for config in (first, *others)} == {0, 0.1, 1}
    assert any(config.reasoning_first for config in others)
    assert any(len(config.data.lenses()) == 2 for config in others)
    assert [config.max_steps for config in plan.configs(7)] == [7] * len(plan.rows)


def test_a_row_that_sets_an_unknown_key_is_refused() -> None:
    plan = Ablations.model_validate({"base": {"name": "x"}, "rows": [{"name": "r", "asks": "?", "set": ["outside=0"]}]})
    with pytest.raises(ConfigError, match=r"'r' has an unknown key 'outside'"):
        plan.configs()


def test_posteriors_in_torch_are_those_of_the_engine(workplace: Path) -> None:
    trainer = trainer_for(workplace)
    tokenizer = TransformersTokenizer(trainer.encoder.tokenizer.backend)
    engine = TransformersEngine(trainer.model.eval(), tokenizer)
    posterior, coverage = read_posteriors(trainer, TEXTS, Lens.AUTHOR, quiet)
    for place, reading in enumerate(engine.read(TEXTS, Lens.AUTHOR)):
        assert posterior[place] == pytest.approx(reading.posterior, abs=1e-4)
        assert coverage[place] == pytest.approx(reading.coverage, abs=1e-4)
    assert not np.allclose(posterior[0], posterior[2], atol=1e-3)


def test_an_answer_with_the_reasoning_first_has_both_objectives_at_their_places(workplace: Path) -> None:
    encoder = trainer_for(workplace, "reasoning_first=true").encoder
    spell = encoder.tokenizer.backend.decode
    reasoned = encoder(Example("I won!", ("joy",), reasoning="They “won”, which is joy."))
    answer = spell(reasoned.tokens[reasoned.answer + 1 :])
    assert answer == '{"reasoning": "They “won”, which is joy.", "emotion": "joy"}<|im_end|>'
    assert spell(reasoned.tokens[: reasoned.label_at + 1]).endswith('"emotion": "')
    trie = encoder.tries[Lens.AUTHOR]
    path = trie.paths[trie.labels.index("joy")]
    assert reasoned.tokens[reasoned.label_at + 1 :][: len(path)] == path
    batch = collate([reasoned, encoder(Example("Go", ("disgust",)))], trie)
    assert len(batch.answer_tokens) == len(reasoned.tokens) - reasoned.answer - 1
    plain = encoder(Example("Go", ("joy",)))
    assert spell(plain.tokens[plain.answer + 1 : plain.label_at + 1]) == '{"emotion": "'


def test_what_is_written_first_is_read_before_the_label(workplace: Path) -> None:
    """The posterior behind a reasoning is that of the whole sequence, and batches change nothing."""
    trainer = trainer_for(workplace, "reasoning_first=true")
    written = write_reasonings(trainer, TEXTS, Lens.AUTHOR, quiet)
    assert len(written) == 4
    assert not any('"' in words for words in written)
    assert written == [write_reasonings(trainer, [text], Lens.AUTHOR, quiet)[0] for text in TEXTS]
    given = ["It “won”.", "No.", "They want to be “alone”, and say so twice.", ""]
    together, _ = read_posteriors(trainer, TEXTS, Lens.AUTHOR, quiet, given)
    alone = [read_posteriors(trainer, [t], Lens.AUTHOR, quiet, [g])[0][0] for t, g in zip(TEXTS, given, strict=True)]
    assert together == pytest.approx(np.stack(alone), abs=1e-4)
    assert not np.allclose(together, read_posteriors(trainer, TEXTS, Lens.AUTHOR, quiet)[0], atol=1e-3)


def test_a_missing_file_is_named_before_anything_is_trained(workplace: Path) -> None:
    plan = load_config(Ablations, plan_for(workplace))
    (workplace / "chains.jsonl").unlink()
    with pytest.raises(DataError, match=r"chains\.jsonl is missing"):
        run_ablations(plan, None, workplace / "runs", quiet, quiet)
    assert not (workplace / "runs").exists()


def test_the_command_writes_the_table_and_goes_on_where_it_stopped(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    asked = ["evaluate", "ablations", "--config", str(plan_for(workplace)), "--json"]
    assert main(asked) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert [row["name"] for row in rows] == ["the base", "restricted", "reasoning first"]
    assert {(row["steps"], row["n"], row["examples"]) for row in rows} == {(3, 60, 240)}
    assert rows[0]["accuracy_difference"] is None
    for figure in ("accuracy", "macro_f1", "loss"):
        difference, (low, high) = rows[1][f"{figure}_difference"], rows[1]["intervals"][f"{figure}_difference"]
        assert difference == pytest.approx(rows[1][figure] - rows[0][figure])
        assert low <= difference <= high
    assert told.err.count("It takes about") == 3

    folder = workplace / "models" / "runs" / "ablations"
    assert json.loads((folder / "ablations.json").read_text())["rows"] == rows
    table = (folder / "ablations.md").read_text()
    assert table.count("\n| ") == 2 + 3
    assert "| restricted | outside_weight=0 |" in table
    for reading in folder.glob("*/dev-*.npz"):  # as if it had been stopped while dev was read
        reading.unlink()
    assert main([*asked, "--report", "out"]) == 0
    again = capsys.readouterr()
    assert "It takes about" not in again.err
    assert json.loads(again.out)["rows"] == rows
    assert sorted(path.name for path in (workplace / "out").iterdir()) == [
        "differences.png", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    assert json.loads((workplace / "out" / "report.json").read_text())["rows"] == rows
    assert table in (workplace / "out" / "report.md").read_text()
    assert "<td" in (workplace / "out" / "report.html").read_text()


def test_the_markdown_says_what_the_figures_are_of(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    plan = load_config(Ablations, plan_for(workplace))
    one = Ablations(base=plan.base, rows=plan.rows[:1])
    results = run_ablations(one, None, workplace / "runs", quiet, quiet, steps=1, limit=10)
    assert "GoEmotions dev, 10 rows, 1 updates a row" in markdown(results)
    assert "| the base | none | 0." in markdown(results)
    assert sorted(write_report(results, workplace / "out")) == ["report.html", "report.json", "report.md"]
