"""Fine-tuning on a tiny random model: it learns, resumes exactly, and what it saves runs in the engine as it was."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.training.commands import train
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_dev, load_training
from toolkit.training.encode import bucketed_batches, split_by_tokens
from toolkit.training.loop import run
from toolkit.training.lora import Trainer, prepare
from toolkit.training.objective import answer_loss, collate, hidden_states, label_loss, with_whole_head


def trainer_for(workplace: Path, *overrides: str) -> Trainer:
    config = load_config(TrainConfig, workplace / "train.yaml", overrides)
    return prepare(config, load_training(config, None), load_dev(config, None))


def quiet(*_: object) -> None:
    return None


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_command_trains_and_writes_an_adapter_that_names_no_local_path(workplace: Path) -> None:
    result = CliRunner().invoke(train, [str(workplace / "train.yaml"), "--set", "max_steps=30"])
    assert result.exit_code == 0, result.output
    log = log_of(workplace / "run")
    assert np.mean([r["label_loss"] for r in log[-5:]]) < 0.9 * np.mean([r["label_loss"] for r in log[:5]])
    adapter = workplace / "run" / "adapter"
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    assert any(float(t.abs().max()) > 0 for name, t in weights.items() if "lora_B" in name)
    for name in ("adapter_config.json", "base.json", "training.json"):
        assert str(workplace) not in (adapter / name).read_text()
    assert json.loads((adapter / "base.json").read_text())["model_id"] == "example/tiny"


def test_a_resumed_run_ends_like_one_that_was_never_stopped(workplace: Path) -> None:
    whole = trainer_for(workplace)
    run(whole, False, quiet)

    class StoppedError(Exception):
        pass

    def stop_after_five(done: int, *_: object) -> None:
        if done == 5:  # one step past the checkpoint, which has to be done again
            raise StoppedError

    broken = trainer_for(workplace, f"out={workplace / 'again'}")
    with pytest.raises(StoppedError):
        run(broken, False, stop_after_five)
    resumed = trainer_for(workplace, f"out={workplace / 'again'}")
    run(resumed, True, quiet)
    for a, b in zip(whole.optimizer.masters, resumed.optimizer.masters, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_run_that_stops_early_keeps_to_the_plan_of_the_whole(workplace: Path) -> None:
    whole, part = trainer_for(workplace), trainer_for(workplace, "stop_at=5", f"out={workplace / 'part'}")
    run(whole, False, quiet)
    assert run(part, False, quiet)["steps"] == 5
    keys = ("step", "label_loss", "learning_rate")
    first = [{key: record[key] for key in keys} for record in log_of(workplace / "run")[:5]]
    assert [{key: record[key] for key in keys} for record in log_of(workplace / "part")] == first
    assert (workplace / "part" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_run_folder_is_never_overwritten_or_resumed_by_accident(workplace: Path) -> None:
    run(trainer_for(workplace, "max_steps=4"), False, quiet)
    with pytest.raises(UsageError, match="already holds a run"):
        run(trainer_for(workplace, "max_steps=4"), False, quiet)
    with pytest.raises(UsageError, match="no checkpoint"):
        run(trainer_for(workplace, f"out={workplace / 'other'}"), True, quiet)


def test_the_shared_head_changes_nothing(workplace: Path) -> None:
    """The losses with keys and values of the head shared, as on a CPU, equal those of whole sequences, as on a GPU."""
    trainer = trainer_for(workplace)
    trainer.model.eval()
    rows = [row for row in trainer.train if row.chain][:4]
    frame, trie = trainer.encoder.frames[Lens.AUTHOR], trainer.encoder.tries[Lens.AUTHOR]
    batch = collate(rows, trie)
    with torch.no_grad():
        shared = hidden_states(trainer.decoder, frame, batch.tokens)
        whole = with_whole_head(trainer.decoder, frame, batch.tokens).reshape(shared.shape)
    assert torch.allclose(shared[batch.label_index], whole[batch.label_index], atol=1e-4)
    assert torch.allclose(answer_loss(shared, trainer.head, batch), answer_loss(whole, trainer.head, batch), atol=1e-4)


def test_the_restricted_loss_is_the_cross_entropy_of_the_constrained_posterior(workplace: Path) -> None:
    """Against the probability of each label's own token path, restricted at every branch, computed one by one."""
    trainer = trainer_for(workplace)
    trainer.model.eval()
    trie, frame = trainer.encoder.tries[Lens.AUTHOR], trainer.encoder.frames[Lens.AUTHOR]
    example = Example("What a strange and sudden noise", ("disgust",), id="x")
    row = trainer.encoder(example)
    with torch.no_grad():
        states = hidden_states(trainer.decoder, frame, collate([row], trie).tokens)
        loss = float(label_loss(states, trainer.head, collate([row], trie), trie, 0.0))
        path = trie.paths[trie.labels.index("disgust")]
        text = trainer.encoder.tokenizer.encode(example.text)
        ids = torch.tensor([[*frame.head, *text, *frame.tail, *frame.prefill, *path]])
        logits = trainer.decoder(input_ids=ids).last_hidden_state[0] @ trainer.head.T
    start = ids.shape[1] - len(path) - 1
    expected = 0.0
    for branch in trie.branches:
        if path[: len(branch.path)] == branch.path and len(path) > len(branch.path):
            allowed = torch.log_softmax(logits[start + len(branch.path)][list(branch.tokens)], 0)
            expected -= float(allowed[branch.tokens.index(path[len(branch.path)])])
    assert loss == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("chained", [0, 3, 8])
def test_the_parts_of_a_step_add_up_to_its_loss_and_its_gradient(workplace: Path, chained: int) -> None:
    """Rows count by their weights, answers by their tokens, however many of the rows have one."""
    trainer = trainer_for(workplace)
    trainer.model.eval()
    taken = [row for row in trainer.train if row.chain][:chained] + [row for row in trainer.train if not row.chain]
    rows = [replace(row, weight=weight) for row, weight in zip(taken, (1, 0.25, 3, 1, 0.5, 2, 1, 0.1), strict=False)]

    def learned(limit: int) -> tuple[dict[str, float], torch.Tensor]:
        told = Counter[str]()
        for part in split_by_tokens(rows, limit):
            total, summands = trainer.loss(part, rows)
            total.backward()
            told.update(summands)
        gradient = torch.cat([p.grad.flatten() for p in trainer.parameters])
        trainer.model.zero_grad()
        return dict(told), gradient

    (whole, gradient), (parts, added) = learned(10**6), learned(64)
    assert len(split_by_tokens(rows, 10**6)) == 1 < len(split_by_tokens(rows, 64))
    assert parts == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(gradient, added, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_step_is_the_mean_over_rows_and_over_answer_tokens(workplace: Path) -> None:
    trainer = trainer_for(workplace)
    trainer.model.eval()
    chains, others = ([row for row in trainer.train if row.chain is chain] for chain in (True, False))
    rows = [*chains[:3], *others[:5]]
    frame, trie = trainer.encoder.frames[Lens.AUTHOR], trainer.encoder.tries[Lens.AUTHOR]
    batch = collate(rows, trie)
    assert len(batch.answer_index) == sum(row.answer_tokens for row in rows) > 0
    with torch.no_grad():
        states = hidden_states(trainer.decoder, frame, batch.tokens)
        label = label_loss(states, trainer.head, batch, trie, trainer.config.outside_weight)
        answer = answer_loss(states, trainer.head, batch)
        total, _ = trainer.loss(rows)
    assert float(total) == pytest.approx(float(label + trainer.config.chain_weight * answer * 3 / 8), rel=1e-6)


def test_batches_are_reproducible_complete_and_of_like_length(workplace: Path) -> None:
    rows = trainer_for(workplace).train
    batches = bucketed_batches(rows, 16, seed=3)
    assert sorted(id(r) for b in batches for r in b) == sorted(id(r) for r in rows)
    again, other = bucketed_batches(rows, 16, seed=3), bucketed_batches(rows, 16, seed=4)
    assert [[id(r) for r in b] for b in batches] == [[id(r) for r in b] for b in again]
    assert [[id(r) for r in b] for b in batches] != [[id(r) for r in b] for b in other]
    padding = sum(len(b) * max(len(r.tokens) for r in b) for b in batches) / sum(len(r.tokens) for r in rows)
    assert padding < 1.3


def test_the_adapter_runs_in_the_engine_as_it_did_in_torch(workplace: Path, tiny_base: Path) -> None:
    """Train, merge without torch, write a GGUF, read through llama.cpp: the posterior is torch's own."""
    from convert.build import build_model
    from toolkit.inference.engine import Engine

    trainer = trainer_for(workplace)
    run(trainer, False, quiet)
    merged = workplace / "merged.gguf"
    build_model(tiny_base, workplace / "run" / "adapter", merged, "F16")
    engine = Engine(merged, threads=1)
    labels = load_taxonomy("goemotions").labels
    examples = load_dev(trainer.config, None)[:20]
    try:
        readings = list(engine.read([e.text for e in examples], Lens.AUTHOR))
        explained = list(engine.explain([e.text for e in examples], Lens.AUTHOR, lambda p: int(p.argmax())))
    finally:
        engine.close()
    for example, reading in zip(examples, readings, strict=True):
        expected = posterior_in_torch(trainer, example)
        assert reading.posterior == pytest.approx(expected, abs=0.02), example.text
    assert [labels[e.label] for e in explained] == [labels[int(r.posterior.argmax())] for r in readings]


def posterior_in_torch(trainer: Trainer, example: Example) -> np.ndarray:
    trainer.model.eval()
    trie = trainer.encoder.tries[Lens.AUTHOR]
    result = []
    for label in trie.labels:
        row = trainer.encoder(Example(example.text, (label,)))
        batch = collate([row], trie)
        with torch.no_grad():
            states = hidden_states(trainer.decoder, trainer.encoder.frames[Lens.AUTHOR], batch.tokens)
            result.append(np.exp(-float(label_loss(states, trainer.head, batch, trie, 0.0))))
    return np.array(result)
