"""What a training run can be told, with its defaults; read from ``models/configs/<name>.yaml``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.lens import Lens
from toolkit.errors import ConfigError


class LoraSettings(Config):
    """The shape of the adapter (Hu et al., 2021). It sits on every linear layer of the decoder."""

    rank: int = Field(16, ge=1, le=16)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class Distillation(Config):
    """What a model said of the rows: they learn its posterior beside their labels."""

    readings: Path = Field(description="JSON lines that `emotion-lrm batch` wrote for the split, with its ids")
    share: float = Field(0.7, gt=0, le=1, description="of the target; the labels make the rest")


class LensData(Config):
    """What is learned through one lens: labelled rows, and rows with a chain of reasoning."""

    rows: Path | None = Field(None, description="JSONL of labelled rows in place of the corpus, such as cleaned ones")
    turns: int = Field(0, ge=0, description="reader: speaker turns beside the situations")
    chains: Path | None = Field(None, description="JSONL written by `emotion-lrm data cot`")
    chain_limit: int | None = Field(None, description="so many of the chains, drawn by the seed; null takes all")
    labels_per_chain: float | None = Field(None, description="rows without a chain for each with one; null takes all")
    distil: Distillation | None = None


class SampleData(Config):
    """A file of our own texts with their labels, some with reasoning, and the lenses that it is learned through."""

    file: Path
    lenses: tuple[Lens, ...] = (Lens.AUTHOR,)
    limit: int | None = Field(None, description="take the first texts only")
    labels_only: bool = Field(False, description="learn the labels, leave the reasoning out")
    votes: Path | None = Field(
        None,
        description="a table of the votes that a judge who did not see the author's labels expects of ten readers; the "
        "label counts as two more",
    )
    repeats: int = Field(1, ge=1)
    erased: bool = Field(
        False, description="learn each text with reasoning once more without some words, so that the quoted ones count"
    )


class DataSettings(Config):
    """What is learned from: each lens's chains and then labelled rows, shuffled by the seed, then the samples."""

    split: str = "train"
    limit: int | None = Field(
        None, description="only so many from the beginning of that order, so samples are cut first; null takes all"
    )
    soft_labels: Literal["equal", "votes", "first"] = Field(
        "equal", description="the target of a row of several labels: equal shares, the raters' votes, its first label"
    )
    author: LensData | None = Field(LensData(), description="GoEmotions; null leaves the lens out")
    reader: LensData | None = Field(None, description="EmpatheticDialogues; null leaves the lens out")
    samples: tuple[SampleData, ...] = ()
    dev_limit: int = Field(1000, description="watch the run by the first so many dev rows of each lens")

    def lenses(self) -> dict[Lens, LensData]:
        """What each lens that is not left out learns."""
        named = {Lens.AUTHOR: self.author, Lens.READER: self.reader}
        return {lens: wanted for lens, wanted in named.items() if wanted is not None}


class RunConfig(Config):
    """What every training run can be told. Lengths are tokens, rates are per step."""

    name: str
    data: DataSettings = DataSettings()
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, description="plan the learning rate for so many steps")
    stop_at: int | None = Field(None, description="end after this step of the plan; a later run may start from there")
    batch_size: int = Field(32, ge=1)
    max_step_tokens: int = Field(2048, ge=64, description="a longer batch is split, its gradients added up")
    learning_rate: float = Field(5e-4, gt=0)
    warmup_steps: int = 100
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    seed: int = 42
    eval_every: int = 400
    checkpoint_every: int = 100
    out: Path | None = Field(None, description="default: models/runs/<name>")

    @property
    def run_dir(self) -> Path:
        """Where log, checkpoints and what was learned are written."""
        return self.out or Path("models/runs") / self.name

    def steps(self, per_epoch: int) -> tuple[int, int]:
        """The steps of the plan, and the one to end after, where an epoch takes ``per_epoch``."""
        planned = math.ceil(per_epoch * self.epochs)
        total = min(planned, self.max_steps or planned)
        return total, min(total, self.stop_at or total)


class TrainConfig(RunConfig):
    """One training run of an adapter."""

    kind: Literal["adapter"] = "adapter"
    base: str = "smollm2-135m"
    init: Path | None = Field(None, description="an adapter folder to start from")
    lora: LoraSettings = LoraSettings()
    outside_weight: float = Field(
        0.1, ge=0, le=1, description="price of label mass on other tokens; 0 restricted, 1 full-vocabulary loss"
    )
    chain_weight: float = Field(0.5, ge=0)
    max_tokens: int = Field(192, ge=16, description="a longer text is cut at its end")
    reasoning_first: bool = Field(
        False, description="reasoning before the label in the answers that have it; an ablation that no engine reads"
    )


class EncoderConfig(RunConfig):
    """One training run of an encoder with a classification head; it looks through one lens."""

    kind: Literal["encoder"]
    bases: tuple[str, ...] = Field(
        ("BAAI/bge-small-en", "all-MiniLM-L6-v2"), min_length=1, description="the first that is to be had is taken"
    )
    taxonomy: str | None = Field(None, description="the labels of the head; the lens's own by default")
    max_length: int = Field(128, ge=8, le=512, description="a longer text is cut at its end")
    epochs: float = Field(3.0, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = 0.01

    @property
    def lens(self) -> Lens:
        """The lens whose data it learns.

        Raises:
            ConfigError: where the data has none or both.
        """
        found = tuple(self.data.lenses())
        if len(found) != 1:
            raise ConfigError("An encoder looks through one lens.", "Leave out data.author or data.reader: null.")
        return found[0]
