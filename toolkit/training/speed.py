"""Our training loop against the plain way, on the same examples in one run: `python -m toolkit.training.speed CONFIG`.

The plain way is what most would write: transformers' Trainer, random batches padded to their longest row, the loss over
the whole vocabulary at every token of the answer, the whole prompt evaluated for every row.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch

from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.prompt import frame_for, load_prompt, prepare_text
from toolkit.training.config import TrainConfig
from toolkit.training.data import load_training
from toolkit.training.encode import HFTokenizer
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


def plain_trainer(config: TrainConfig, examples: list[Example], steps: int) -> Any:
    """transformers' Trainer with the same base, adapter, precision, rate and batch size as ``config``."""
    from transformers import PrinterCallback, TrainingArguments
    from transformers import Trainer as HFTrainer

    dtype = choose_precision(config.precision)
    model, backend, _ = load_base_weights(load_base(config.base), dtype)
    model.config._attn_implementation = "sdpa"  # what transformers chooses by itself
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        max_steps=steps,
        bf16=dtype is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=config.seed,
    )
    rows = PlainRows(examples, HFTokenizer(backend), config.max_tokens)
    trainer = HFTrainer(put_adapter(config, model), arguments, train_dataset=rows, data_collator=pad)
    trainer.remove_callback(PrinterCallback)  # it would print between our JSON
    return trainer


def measure(config: TrainConfig, examples: list[Example], steps: int, rounds: int) -> dict[str, Any]:
    """Examples per second of both ways, medians over ``rounds`` of ``steps`` steps that take turns.

    A round of each warms up and is not counted.
    """
    ours, plain = prepare(config, examples, []), plain_trainer(config, examples, steps)
    ours.model.train()
    stream = _endless(ours)
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(rounds + 1):
        for name, rate in (("ours", _our_rate(ours, stream, steps)), ("plain", _plain_rate(plain, steps))):
            if turn:
                found[name].append(rate)
    rates = {name: statistics.median(values) for name, values in found.items()}
    return {
        "examples": len(examples), "batch_size": config.batch_size, "steps": steps, "rounds": rounds,
        "threads": torch.get_num_threads(), "precision": str(choose_precision(config.precision)),
        "examples_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["plain"], 2),
    }  # fmt: skip


def _endless(trainer: Trainer) -> Iterator[Any]:
    while True:
        yield from trainer.batches(0)


def _our_rate(trainer: Trainer, stream: Iterator[Any], steps: int) -> float:
    began, seen = time.perf_counter(), 0
    for step, rows in enumerate(itertools.islice(stream, steps)):
        trainer.step(step, rows)
        seen += len(rows)
    return seen / (time.perf_counter() - began)


def _plain_rate(trainer: Any, steps: int) -> float:
    began = time.perf_counter()
    trainer.train()
    return steps * int(trainer.args.per_device_train_batch_size) / (time.perf_counter() - began)


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--source", type=click.Path(file_okay=False, path_type=Path), help="Folder with the corpora.")
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True, help="Examples to draw batches from.")
@click.option("--steps", type=click.IntRange(1), default=6, show_default=True, help="Steps of a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(config: Path, overrides: tuple[str, ...], source: Path | None, rows: int, steps: int, rounds: int) -> None:
    """Compare the training loop with transformers' Trainer on the examples that CONFIG names; prints JSON."""
    settings = load_config(TrainConfig, config, overrides)
    examples = load_training(settings, source)[:rows]
    click.echo(json.dumps(measure(settings, examples, steps, rounds)))


if __name__ == "__main__":
    main()
