"""LoRA fine-tuning of any causal LM that transformers knows, on the CPU by default, on a GPU when there is one."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from toolkit.base import load_base
from toolkit.contract.example import Example
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.training.checkpoint import Checkpoint, save_adapter
from toolkit.training.config import RunConfig, TrainConfig
from toolkit.training.encode import Encoded, Encoder, HFTokenizer, bucketed_batches, epochs_of, split_by_tokens
from toolkit.training.learned import Learned, learned_from, read_learned
from toolkit.training.objective import answer_loss, collate, hidden_states, label_loss, label_posterior
from toolkit.training.weights import choose_precision, load_base_weights

ON_GPU = 16
"""A GPU takes so many times the tokens of ``max_step_tokens`` at once."""


class MasterAdamW:
    """AdamW on float32 copies of low-precision parameters, with linear warm-up and decay.

    Updates of bfloat16 weights vanish once they fall under 1/256 of the weight; the float32 copies keep them.
    """

    def __init__(self, parameters: list[Tensor], config: RunConfig, total_steps: int) -> None:
        self.parameters, self.config, self.total_steps = parameters, config, total_steps
        self.masters = [p.detach().float().clone() for p in parameters]
        self.adam = torch.optim.AdamW(self.masters, lr=config.learning_rate, weight_decay=config.weight_decay)

    def rate(self, step: int) -> float:
        """The learning rate at ``step``, from 0: linear up over the warm-up, then linear down to 0."""
        warm = (step + 1) / max(1, self.config.warmup_steps)
        cool = (self.total_steps - step) / max(1, self.total_steps - self.config.warmup_steps)
        return self.config.learning_rate * max(0.0, min(1.0, warm, cool))

    def step(self, step: int) -> float:
        """Clip, update, copy back; returns the gradient norm before clipping."""
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.config.max_grad_norm)
        for group in self.adam.param_groups:
            group["lr"] = self.rate(step)
        self.adam.step()
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                parameter.copy_(master)
        return float(norm)

    def restore(self, checkpoint: Checkpoint) -> int:
        """Put weights, optimizer and random state back; returns the step to go on with."""
        with torch.no_grad():
            for parameter, master, saved in zip(self.parameters, self.masters, checkpoint.masters, strict=True):
                master.copy_(saved)
                parameter.copy_(saved)
        self.adam.load_state_dict(checkpoint.optimizer)
        torch.set_rng_state(checkpoint.random_state)
        if checkpoint.gpu_random_state is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(checkpoint.gpu_random_state)
        return checkpoint.step

    def snapshot(self, step: int) -> Checkpoint:
        """Everything that a resume needs after ``step`` updates."""
        gpu = torch.cuda.get_rng_state() if self.masters[0].device.type == "cuda" else None
        return Checkpoint(step, self.masters, self.adam.state_dict(), torch.get_rng_state(), gpu)


@dataclass
class Trainer:
    """A loaded model with its adapter, and the data it learns from."""

    config: TrainConfig
    model: Any
    encoder: Encoder
    train: list[Encoded]
    dev: list[Encoded]
    facts: dict[str, str]
    learned: Learned
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        core = self.model.get_base_model()
        self.decoder, self.head = core.model, core.get_output_embeddings().weight
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        per_epoch = len(bucketed_batches(self.train, self.config.batch_size, 0))
        self.total_steps, self.last_step = self.config.steps(per_epoch)
        self.optimizer = MasterAdamW(self.parameters, self.config, self.total_steps)
        self.part_tokens = self.config.max_step_tokens * (ON_GPU if self.model.device.type == "cuda" else 1)

    def batches(self, start: int) -> Iterator[list[Encoded]]:
        """The batches of steps ``start`` to the one to stop at; the same seed gives the same ones after a resume."""
        stream = epochs_of(lambda epoch: bucketed_batches(self.train, self.config.batch_size, self.config.seed + epoch))
        return itertools.islice(stream, start, self.last_step)

    def loss(self, rows: list[Encoded], step: list[Encoded] | None = None) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of both objectives for some rows of a ``step``, by default all of it, and its summands.

        The parts that a step is split into add up to the loss of the whole. The label's is a mean over rows by their
        weights and the answer's a mean over answer tokens, so that is what a part counts by.
        """
        step = step or rows
        frame, trie = self.encoder.frames[rows[0].lens], self.encoder.tries[rows[0].lens]
        batch = collate(rows, trie)
        states = hidden_states(self.decoder, frame, batch.tokens.to(self.model.device))
        counted = _portion(len(step), [row.weight for row in rows], [row.weight for row in step])
        label = label_loss(states, self.head, batch, trie, self.config.outside_weight) * counted / len(step)
        chains = sum(row.chain for row in step)
        counted = _portion(chains, [row.answer_tokens for row in rows], [row.answer_tokens for row in step])
        answer = answer_loss(states, self.head, batch) * counted / len(step)
        parts = {"label_loss": float(label.detach()), "answer_loss": float(answer.detach())}
        return label + self.config.chain_weight * answer, parts

    def step(self, number: int, rows: list[Encoded]) -> dict[str, float]:
        """One update; gradients are accumulated over parts that stay within ``part_tokens``."""
        self.model.train()
        told: dict[str, float] = {"label_loss": 0.0, "answer_loss": 0.0}
        for part in split_by_tokens(rows, self.part_tokens):
            total, parts = self.loss(part, rows)
            total.backward()  # type: ignore[no-untyped-call]
            told = {key: told[key] + value for key, value in parts.items()}
        if not math.isfinite(told["label_loss"] + told["answer_loss"]):
            raise EmotionLRMError(f"The loss is no number at step {number}.", "Lower learning_rate, or use float32.")
        share = sum(row.chain for row in rows) / len(rows)
        told["answer_loss"] /= share or 1.0
        return {**told, "grad_norm": self.optimizer.step(number), "learning_rate": self.optimizer.rate(number)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Label loss and top-1 accuracy on the dev rows: a label counts as right if it is among the gold labels."""
        if not self.dev:
            return {}
        self.model.eval()
        loss, right, count = 0.0, 0, 0
        for rows in bucketed_batches(self.dev, self.config.batch_size, 0):
            frame, trie = self.encoder.frames[rows[0].lens], self.encoder.tries[rows[0].lens]
            batch = collate(rows, trie)
            states = hidden_states(self.decoder, frame, batch.tokens.to(self.model.device))
            loss += float(label_loss(states, self.head, batch, trie, 0.0)) * len(rows)
            guess = label_posterior(states.cpu(), self.head.cpu(), batch, trie).argmax(1)
            right += sum(bool(row.target[g] > 0) for row, g in zip(rows, guess, strict=True))
            count += len(rows)
        return {"dev_label_loss": loss / count, "dev_accuracy": right / count}

    def save(self, folder: Path, metrics: dict[str, Any]) -> Path:
        """Write the adapter to ``folder/adapter``; returns where."""
        save_adapter(self.model, folder / "adapter", self.facts, self.config, metrics, self.learned)
        return folder / "adapter"


def _portion(n: int, part: Sequence[float], whole: Sequence[float]) -> float:
    """What falls to a part of ``n`` that the whole shares."""
    return n * sum(part) / (sum(whole) or 1)


def put_adapter(config: TrainConfig, model: Any) -> Any:
    """The model with a fresh adapter, or with the one that ``config.init`` names, ready to train."""
    from peft import LoraConfig, PeftModel, get_peft_model

    with warnings.catch_warnings():
        # peft still asks for an attribute that transformers has renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        if config.init is not None:
            where = {"torch_device": str(model.device), "autocast_adapter_dtype": False}
            return PeftModel.from_pretrained(model, str(config.init), is_trainable=True, **where)
        lora = LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, lora, autocast_adapter_dtype=False)


def prepare(config: TrainConfig, examples: list[Example], dev: list[Example]) -> Trainer:
    """Load the base model, put the adapter on it and encode the examples."""
    torch.manual_seed(config.seed)
    dtype = choose_precision(config.precision)
    model, backend, facts = load_base_weights(load_base(config.base), dtype)
    if torch.cuda.is_available():
        model = model.to("cuda")
    encoder = Encoder(HFTokenizer(backend), config.max_tokens, config.reasoning_first)
    if not examples:
        raise UsageError("There is nothing to learn from.", "Check data.split and data.limit.")
    learned = learned_from(config.data, examples)
    if config.init is not None:
        learned |= read_learned(config.init)
    wrapped = put_adapter(config, model)
    return Trainer(config, wrapped, encoder, [encoder(e) for e in examples], [encoder(e) for e in dev], facts, learned)


def account(trainer: Trainer) -> dict[str, float]:
    """What the run will take: counts, and memory and time from measured batches (nothing is updated).

    Memory is the GPU's where the model is on one, else this process's. The longest batch is among the batches, as it
    sets the peak; the first warms up and is not timed.
    """
    sample = list(itertools.islice(trainer.batches(0), 4))
    longest = max(bucketed_batches(trainer.train, trainer.config.batch_size, 0), key=lambda b: len(b[-1].tokens))
    trainer.model.train()
    seconds, tokens = 0.0, 0
    for rows in (longest, *sample):
        started = time.monotonic()
        for part in split_by_tokens(rows, trainer.part_tokens):
            trainer.loss(part, rows)[0].backward()  # type: ignore[no-untyped-call]
        if rows is not longest:
            seconds += time.monotonic() - started
            tokens += sum(len(row.tokens) for row in rows)
    trainer.model.zero_grad(set_to_none=True)
    mean = sum(len(row.tokens) for row in trainer.train) / len(trainer.train)
    on_gpu = trainer.model.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    return {
        "examples": len(trainer.train),
        "chains": sum(row.chain for row in trainer.train),
        "tokens_per_example": round(mean, 1),
        "steps": trainer.last_step,
        "trainable_parameters": sum(p.numel() for p in trainer.parameters),
        "memory_mb": round(memory / 1e6),
        "minutes": round(trainer.last_step * mean * trainer.config.batch_size * seconds / tokens / 60, 1),
    }
