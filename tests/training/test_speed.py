"""The comparison of our training loop with transformers' Trainer, on the tiny model."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.errors import UsageError
from toolkit.training import speed
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_training
from toolkit.training.encode import Encoded, HFTokenizer
from toolkit.training.lora import Trainer
from toolkit.training.speed import IGNORED, PlainRows, PlainWay, draw, main, measure, pad
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
    given = [str(workplace / "train.yaml"), "--steps", "1", "--rounds", "1", "--set", "batch_size=8"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    rates = told["examples_per_second"]
    assert min(rates.values()) > 0
    assert abs(told["ratio"] - rates["ours"] / rates["plain"]) < 0.01 * told["ratio"] + 0.01


def test_both_ways_take_each_of_the_same_examples_once_a_round(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches the steps of either way, by what is asked: text and tail. Examples are of the whole mix."""
    config = load_config(TrainConfig, workplace / "train.yaml", ("batch_size=4",))
    asked: list[tuple[str, Counter[tuple[int, ...]]]] = []
    chains: Counter[bool] = Counter()
    step = Trainer.step

    def note(way: str, rows: list[tuple[int, ...]]) -> None:
        if not asked or asked[-1][0] != way:
            asked.append((way, Counter()))
        asked[-1][1].update(rows)

    def our_step(self: Trainer, number: int, rows: list[Encoded]) -> dict[str, float]:
        head = self.encoder.frames[Lens.AUTHOR].head
        note("ours", [(*head, *row.tokens[: row.answer + 1]) for row in rows])
        chains.update(row.chain for row in rows)
        return step(self, number, rows)

    def plain_batch(rows: list[dict[str, list[int]]]) -> Any:
        note("plain", [tuple(row["input_ids"][: row["labels"].count(IGNORED)]) for row in rows])
        return pad(rows)

    monkeypatch.setattr(Trainer, "step", our_step)
    monkeypatch.setattr(speed, "pad", plain_batch)
    measure(config, load_training(config, None), 2, 2)
    assert [way for way, _ in asked] == ["ours", "plain"] * 3
    rounds = [rows for _, rows in asked]
    assert rounds[0::2] == rounds[1::2]
    assert [rows.total() for rows in rounds] == [8] * 6
    assert rounds[0] != rounds[2] != rounds[4]
    assert min(chains[True], chains[False]) > 0


def test_examples_are_drawn_by_the_seed_and_none_twice(workplace: Path) -> None:
    config = load_config(TrainConfig, workplace / "train.yaml")
    examples = load_training(config, None)
    drawn = draw(examples, 20, 3, 1)
    assert [len(part) for part in drawn] == [20, 20, 20]
    assert len({id(example) for part in drawn for example in part}) == 60
    assert drawn == draw(examples, 20, 3, 1) != draw(examples, 20, 3, 2)
    with pytest.raises(UsageError, match="241 examples are needed, 240 are there"):
        draw(examples, 241, 1, 1)


def test_what_prepares_the_plain_way_is_not_timed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(TrainConfig, workplace / "train.yaml", ("batch_size=4",))
    way = PlainWay(config)
    loader = way.trainer.get_train_dataloader

    def slowly() -> Any:
        time.sleep(0.5)
        return loader()

    monkeypatch.setattr(way.trainer, "get_train_dataloader", slowly)
    began = time.perf_counter()
    timed = way.seconds(load_training(config, None)[:8])
    assert 0 < timed < time.perf_counter() - began - 0.5
