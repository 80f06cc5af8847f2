"""The weighted mean of LoRA adapters as one LoRA adapter, with numpy alone.

Models that were fine-tuned from the same base can be averaged weight by weight and keep much of what each has learned
(model soups, https://arxiv.org/abs/2203.05482; with an earlier state, https://arxiv.org/abs/2109.01903). What is
averaged are the changes ``scale * b @ a``; the mean is cut to the rank asked for by its singular values.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from convert.adapter import BASE_FILE, CONFIG_FILE, WEIGHTS_FILE, Adapter, LoraLayer, read_adapter
from convert.errors import AdapterError
from convert.files import read_json_object, replacing
from convert.tensors import Floats

TRAINING_FILE = "training.json"


def average_adapters(folders: Sequence[Path], weights: Sequence[float], out: Path, rank: int = 16) -> float:
    """Write the mean of the adapters in ``folders`` to the folder ``out``, in float16, with ``alpha`` twice the rank.

    Args:
        weights: one for each adapter; they are divided by their sum.

    Returns:
        The share of the mean change's squared norm that ``rank`` keeps, 0 to 1, over all matrices.

    Raises:
        AdapterError: an adapter that cannot be read, or two that belong to different bases or change other matrices.
    """
    if not folders or len(folders) != len(weights) or not all(0 < weight < math.inf for weight in weights):
        raise AdapterError("Every adapter needs one weight above 0.", "Give as many as there are adapters: 3,1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out} is there already.", "Choose a new folder.")
    adapters = [read_adapter(folder) for folder in folders]
    shares = np.array(weights, np.float64) / sum(weights)
    parts = [_part(*item) for item in zip(folders, shares, strict=True)]
    _require_alike(adapters)
    tensors: dict[str, npt.NDArray[np.float16]] = {}
    kept = whole = 0.0
    for layers in zip(*(adapter.layers for adapter in adapters), strict=True):
        a, b, singular = _mean(layers, shares, rank)
        kept, whole = kept + float((singular[:rank] ** 2).sum()), whole + float((singular**2).sum())
        stem = f"base_model.model.{layers[0].module}.lora_"
        tensors |= {f"{stem}A.weight": _half(a), f"{stem}B.weight": _half(b)}
    config = {**adapters[0].config, "r": rank, "lora_alpha": 2 * rank, "use_rslora": False}
    config |= {"rank_pattern": {}, "alpha_pattern": {}}
    _write(out / TRAINING_FILE, {"average": parts})
    if base := adapters[0].base:
        _write(out / BASE_FILE, asdict(base))
    _write(out / CONFIG_FILE, config)
    with replacing(out / WEIGHTS_FILE) as path:  # last, so that a folder that has them is whole
        save_file(tensors, path, {"format": "pt"})
    return kept / whole if whole else 1.0


def _require_alike(adapters: Sequence[Adapter]) -> None:
    first = adapters[0]
    for other in adapters[1:]:
        if other.base != first.base:
            raise AdapterError(
                f"{other.path} and {first.path} do not name the same base.", "Choose adapters whose base.json agree."
            )
        if [(x.module, x.shape) for x in other.layers] != [(x.module, x.shape) for x in first.layers]:
            raise AdapterError(
                f"{other.path} and {first.path} change different matrices.", "Choose adapters of the same modules."
            )


def _mean(layers: Sequence[LoraLayer], shares: npt.NDArray[np.float64], rank: int) -> tuple[Floats, Floats, Floats]:
    """``a`` (rank, in) and ``b`` (out, rank) of the mean change divided by 2, and all its singular values.

    The mean is a product of two thin matrices, so their QR decompositions leave a small one to decompose.
    """
    a = np.concatenate([layer.a for layer in layers]).astype(np.float64)
    b = np.concatenate([x.b * (x.scale / 2 * s) for x, s in zip(layers, shares, strict=True)], 1).astype(np.float64)
    left, upper = np.linalg.qr(b)
    right, lower = np.linalg.qr(a.T)
    u, singular, v = np.linalg.svd(upper @ lower.T, full_matrices=False)
    root = np.sqrt(singular[:rank])
    thin_a, thin_b = root[:, None] * (v[:rank] @ right.T), left @ u[:, :rank] * root
    missing = rank - len(root)
    return np.pad(thin_a, ((0, missing), (0, 0))), np.pad(thin_b, ((0, 0), (0, missing))), singular


def _half(matrix: Floats) -> npt.NDArray[np.float16]:
    return np.ascontiguousarray(matrix, np.float16)


def _part(folder: Path, share: float) -> dict[str, Any]:
    """What is known of one of the adapters, and what it counts for."""
    told = folder / TRAINING_FILE
    known = read_json_object(told, partial(_bad, folder)) if told.is_file() else {"folder": folder.name}
    return {"weight": round(float(share), 6), **known}


def _bad(folder: Path, why: str, hint: str) -> AdapterError:
    return AdapterError(f"{folder} cannot be averaged: {why}", hint or "Remove the file, or train again.")


def _write(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
