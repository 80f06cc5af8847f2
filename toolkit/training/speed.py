"""Our training loop against the plain way, on the same examples in one run: `python -m toolkit.training.speed CONFIG`.

The plain way is what most would write: transformers' Trainer, random batches padded to their longest row, the loss over
the whole vocabulary at every token of the answer, the whole prompt evaluated for every row. In every round both ways
take each of the same examples once, and only their steps are timed, nothing of what prepares them.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers import Trainer as HFTrainer

from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.prompt import frame_for, load_prompt, prepare_text
from toolkit.errors import UsageError
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_training
from toolkit.training.encode import Encoded, HFTokenizer, bucketed_batches
from toolkit.training.lora import Trainer, prepare, put_adapter
from toolkit.training.weights import choose_precision, load_base_weights

IGNORED = -100  # torch's own mark for a token without loss


class PlainRows(torch.utils.data.Dataset[dict[str, list[int]]]):
    """Prompt and answer of every example as one sequence; the loss is of the answer alone."""

    def __init__(self, examples: list[Example], tokenizer: HFTokenizer, max_tokens: int) -> None:
        self.rows = [self._row(example, tokenizer, max_tokens) for example in examples]

    @staticmethod
    def _row(example: Example, tokenizer: HFTokenizer, max_tokens: int) -> dict[str, list[int]]:
        frame = frame_for(tokenizer, example.lens)
        text = tokenizer.encode(prepare_text(example.text))[:max_tokens]
        prompt = [*frame.head, *text, *frame.tail]
        answer = [*frame.prefill, *tokenizer.encode(example.labels[0])]
        if example.reasoning:
            answer += [*frame.bridge, *tokenizer.encode(example.reasoning + load_prompt().close)]
        answer.append(frame.eos)
        return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch of the plain way: rows padded on the right to the longest."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (longest - len(r["input_ids"])) for r in rows])
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED), "attention_mask": mask}


class Watch(TrainerCallback):  # type: ignore[misc]
    """A stopwatch from a trainer's first step to the end of its last."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_step_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Start at the first step."""
        if state.global_step == 0:
            self.began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop, until another step ends."""
        self.ended = _now()


class PlainWay:
    """transformers' Trainer with the same base, adapter, precision, rate and batch size as ``config``."""

    def __init__(self, config: TrainConfig) -> None:
        dtype = choose_precision(config.precision)
        model, backend, _ = load_base_weights(load_base(config.base), dtype)
        model.config._attn_implementation = "sdpa"  # what transformers chooses by itself
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            num_train_epochs=1,
            bf16=dtype is torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=config.seed,
        )
        self.tokenizer, self.max_tokens, self.watch = HFTokenizer(backend), config.max_tokens, Watch()
        self.trainer: Any = HFTrainer(put_adapter(config, model), arguments, data_collator=pad, callbacks=[self.watch])
        self.trainer.remove_callback(PrinterCallback)  # it would print between our JSON

    def seconds(self, examples: list[Example]) -> float:
        """How long it takes to learn every example once, in random order."""
        self.trainer.train_dataset = PlainRows(examples, self.tokenizer, self.max_tokens)
        self.trainer.train()
        return self.watch.ended - self.watch.began


def our_seconds(trainer: Trainer, rows: list[Encoded], seed: int) -> float:
    """How long our loop takes to learn every row once, in batches of like length."""
    batches = bucketed_batches(rows, trainer.config.batch_size, seed)
    began = _now()
    for step, batch in enumerate(batches):
        trainer.step(step, batch)
    return _now() - began


def draw(examples: list[Example], size: int, rounds: int, seed: int) -> list[list[Example]]:
    """``rounds`` times ``size`` of all the examples by the seed, none of them twice.

    Raises:
        UsageError: there are too few.
    """
    wanted = size * rounds
    if len(examples) < wanted:
        raise UsageError(f"{wanted} examples are needed, {len(examples)} are there.", "Lower --steps or --rounds.")
    drawn = random.Random(seed).sample(examples, wanted)
    return [drawn[start : start + size] for start in range(0, wanted, size)]


def measure(config: TrainConfig, examples: list[Example], steps: int, rounds: int) -> dict[str, Any]:
    """Examples per second of both ways, medians over ``rounds`` of ``steps`` steps that take turns.

    A round of each warms up and is not counted.
    """
    size = config.batch_size * steps
    drawn = draw(examples, size, rounds + 1, config.seed)
    ours, plain = prepare(config, [e for part in drawn for e in part], []), PlainWay(config)
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn, part in enumerate(drawn):
        found["ours"].append(size / our_seconds(ours, ours.train[turn * size : (turn + 1) * size], config.seed + turn))
        found["plain"].append(size / plain.seconds(part))
    rates = {name: statistics.median(values[1:]) for name, values in found.items()}
    return {
        "examples": size * rounds, "batch_size": config.batch_size, "steps": steps, "rounds": rounds,
        "threads": torch.get_num_threads(), "precision": str(choose_precision(config.precision)),
        "examples_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["plain"], 2),
    }  # fmt: skip


def _now() -> float:
    """Seconds on a clock, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--source", type=click.Path(file_okay=False, path_type=Path), help="Folder with the corpora.")
@click.option("--steps", type=click.IntRange(1), default=6, show_default=True, help="Steps of a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(config: Path, overrides: tuple[str, ...], source: Path | None, steps: int, rounds: int) -> None:
    """Compare the training loop with transformers' Trainer on examples drawn from CONFIG's whole mix; prints JSON."""
    settings = load_config(TrainConfig, config, overrides)
    click.echo(json.dumps(measure(settings, load_training(settings, source), steps, rounds)))


if __name__ == "__main__":
    main()
