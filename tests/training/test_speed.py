"""The comparison of our training loop with transformers' Trainer, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.contract.answer import render_answer
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_training
from toolkit.training.encode import HFTokenizer
from toolkit.training.speed import IGNORED, PlainRows, main, pad
from toolkit.training.weights import choose_precision, load_base_weights


def test_the_plain_way_learns_the_same_answers_as_we_do(workplace: Path) -> None:
    config = load_config(TrainConfig, workplace / "train.yaml")
    examples = [e for e in load_training(config, None) if e.reasoning][:4]
    _, backend, _ = load_base_weights(load_base(config.base), choose_precision("float32"))
    rows = PlainRows(examples, HFTokenizer(backend), config.max_tokens)
    for example, row in zip(examples, rows.rows, strict=True):
        answer = [token for token in row["labels"] if token != IGNORED]
        assert backend.decode(answer[:-1]) == render_answer(example.labels[0], example.reasoning)
        assert row["input_ids"][-len(answer) :] == answer
    batch = pad(rows.rows)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert int(batch["attention_mask"].sum()) == sum(len(row["input_ids"]) for row in rows.rows)


def test_both_ways_are_timed_in_one_run(workplace: Path) -> None:
    given = [str(workplace / "train.yaml"), "--rows", "60", "--steps", "1", "--rounds", "1", "--set", "batch_size=8"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    rates = told["examples_per_second"]
    assert min(rates.values()) > 0
    assert abs(told["ratio"] - rates["ours"] / rates["plain"]) < 0.01 * told["ratio"] + 0.01
