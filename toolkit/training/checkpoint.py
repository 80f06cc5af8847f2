"""Checkpoints of a run, and the finished adapter in PEFT's own format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from convert.files import replacing
from toolkit.training.config import TrainConfig
from toolkit.training.learned import Learned

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` updates: float32 adapter weights, optimizer and random states, where dropout draws."""

    step: int
    masters: list[Tensor]
    optimizer: dict[str, Any]
    random_state: Tensor
    gpu_random_state: Tensor | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint; a kill in mid-write leaves the old one."""
    with replacing(folder / CHECKPOINT) as path:
        torch.save(checkpoint.__dict__, path)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The run's checkpoint, or None; one that a GPU wrote can be gone on with on a CPU, and the other way round."""
    path = folder / CHECKPOINT
    return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True)) if path.exists() else None


def save_adapter(
    model: Any, folder: Path, facts: dict[str, str], config: TrainConfig, metrics: dict[str, Any], learned: Learned
) -> None:
    """Write the adapter as PEFT does, in bfloat16, with public names instead of local paths.

    ``base.json`` says which base it belongs to, ``training.json`` how it was made and from what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].base_model_name_or_path = facts["model_id"]
    model.save_pretrained(str(folder), save_embedding_layers=False)
    weights = folder / "adapter_model.safetensors"
    lowered = {name: t.to(torch.bfloat16).contiguous() for name, t in load_file(weights).items()}
    with replacing(weights) as path:
        save_file(lowered, path, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)
    told = {"config": public(config), "metrics": metrics, "learned": learned.to_dict()}
    for name, content in (("base.json", facts), ("training.json", told)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def public(config: TrainConfig) -> dict[str, Any]:
    """The settings as others may read them: files by their names, without this machine's folders."""
    told: dict[str, Any] = _bare(config.model_dump(exclude={"out", "init"}))
    return told | {"base": Path(config.base).stem}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_bare(inner) for inner in value]
    return value.name if isinstance(value, Path) else value
