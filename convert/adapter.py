"""Read a LoRA adapter in PEFT's own format, with numpy alone, and refuse early what cannot be merged.

LoRA: https://arxiv.org/abs/2106.09685 (scale alpha / r); rsLoRA: https://arxiv.org/abs/2312.03732 (alpha / sqrt(r)).
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from convert.errors import AdapterError, ConvertError
from convert.files import read_json_object, sha256_of
from convert.header import Header
from convert.safetensors_file import StoredTensor, read_safetensors
from convert.tensors import Floats

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"

_LORA_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight$")

# Settings of PEFT under which base + scale * B @ A is not the model that was trained: why each is refused.
_UNSUPPORTED = {
    "use_dora": "it is a DoRA adapter",
    "modules_to_save": "it replaces whole modules (modules_to_save)",
    "trainable_token_indices": "it changes token embeddings (trainable_token_indices)",
    "target_parameters": "it adapts bare parameters (target_parameters)",
    "layer_replication": "it replicates layers",
    "lora_bias": "it trains biases of its own (lora_bias)",
    "fan_in_fan_out": "its matrices are transposed (fan_in_fan_out)",
    "alora_invocation_tokens": "it is an activated LoRA, on only after certain tokens",
    "use_qalora": "it is a QALoRA adapter",
    "use_bdlora": "it is a block-diagonal LoRA adapter",
    "arrow_config": "it routes between adapters (Arrow)",
    "kasa_config": "it is a KaSA adapter",
    "monteclora_config": "it is a MonteCLoRA adapter",
    "velora_config": "it is a VeLoRA adapter",
}
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class BaseClaim:
    """What ``base.json`` says the adapter was trained on; there is no hash where the base was a folder."""

    model_id: str
    gguf_sha256: str | None
    architecture: str


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """One adapted matrix W (out, in): its change is ``scale * b @ a`` with ``a`` (r, in) and ``b`` (out, r)."""

    module: str
    a: Floats
    b: Floats
    scale: float
    alpha: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the matrix it changes."""
        return (self.b.shape[0], self.a.shape[1])


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that can be merged. ``sha256`` covers its weights and its config."""

    path: Path
    layers: tuple[LoraLayer, ...]
    base: BaseClaim | None
    config: Mapping[str, Any]
    sha256: str


def read_adapter(folder: Path | str) -> Adapter:
    """Read a PEFT LoRA folder: ``adapter_config.json``, ``adapter_model.safetensors`` and, if there, ``base.json``.

    Raises:
        AdapterError: incomplete, damaged, or no plain LoRA (DoRA, modules_to_save, changed embeddings...).
        FileError: unreadable.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise _bad(folder, f"it has no {WEIGHTS_FILE}", "Pickled weights (.bin) are not read; save as safetensors.")
    try:
        stored = read_safetensors(weights)
        layers = tuple(_layer(folder, config, *item) for item in sorted(_pairs(folder, stored).items()))
    except AdapterError:
        raise
    except ConvertError as error:
        raise AdapterError(str(error), error.hint) from error
    digest = hashlib.sha256((sha256_of(weights) + sha256_of(folder / CONFIG_FILE)).encode()).hexdigest()
    return Adapter(folder, layers, _read_base(folder), config, digest)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read ``adapter_config.json`` and refuse every kind of adapter that is no plain LoRA.

    Raises:
        AdapterError: no such file, damaged, or not a plain LoRA.
    """
    config = read_json_object(folder / CONFIG_FILE, partial(_bad, folder))
    if config.get("peft_type") != "LORA":
        raise _bad(folder, f"its kind is {config.get('peft_type')!r}, not LORA")
    for setting, why in _UNSUPPORTED.items():
        if config.get(setting):
            raise _bad(folder, why)
    if config.get("bias", "none") != "none":
        raise _bad(folder, f"it trains biases (bias={config['bias']!r})")
    initial = config.get("init_lora_weights", True)
    if isinstance(initial, str) and initial.startswith(_BASE_CHANGING_INITS):
        raise _bad(
            folder, f"its initialisation ({initial}) changed the base weights", "Convert it to a plain LoRA first."
        )
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise _bad(folder, f"its rank is {rank!r}")
    if isinstance(config.get("lora_alpha"), bool) or not isinstance(config.get("lora_alpha"), int | float):
        raise _bad(folder, f"its lora_alpha is {config.get('lora_alpha')!r}")
    return config


def require_base(adapter: Adapter, base_gguf: Path | str, header: Header) -> str:
    """Return the SHA-256 of a base GGUF, after making sure that it is the one the adapter was trained on.

    An adapter without ``base.json`` (not trained by this project) is held only against the shapes of the base, one that
    was trained on a folder against its architecture as well.

    Raises:
        AdapterError: another architecture, or another file.
    """
    digest = sha256_of(base_gguf)
    if adapter.base is None:
        return digest
    if adapter.base.architecture != header.architecture:
        raise _bad(
            adapter.path,
            f"it was trained on a {adapter.base.architecture} model and the base is {header.architecture}",
            f"Use {adapter.base.model_id}.",
        )
    trained_on = adapter.base.gguf_sha256
    if trained_on is not None and trained_on != digest:
        raise _bad(
            adapter.path,
            f"it was trained on another base (SHA-256 {trained_on[:12]}…, this file has {digest[:12]}…)",
            f"Use the GGUF of {adapter.base.model_id} it was trained on.",
        )
    return digest


def layers_by_tensor(adapter: Adapter, header: Header) -> dict[str, LoraLayer]:
    """Match every adapted module with its tensor of a GGUF; ``b`` comes back in the row order of the GGUF.

    llama.cpp's converter permutes the rows of q and k of the llama architecture (see ``rope_permutation``), so the
    rows of ``b`` are permuted alike.

    Raises:
        AdapterError: a module without its tensor (a tied head, for one), or one of another shape.
    """
    names = gguf.get_tensor_name_map(_architecture(header), int(header.metadata[f"{header.architecture}.block_count"]))
    tensors = {tensor.name: tensor for tensor in header.tensors}
    result = {}
    for layer in adapter.layers:
        name = names.get_name(layer.module + ".weight", try_suffixes=(".weight",))
        tensor = tensors.get(name) if name is not None else None
        if name is None or tensor is None:
            raise _bad(adapter.path, f"its module {layer.module} has no tensor in {header.path.name}")
        if tensor.shape != layer.shape:
            raise _bad(
                adapter.path, f"its module {layer.module} changes {layer.shape} weights, and {name} has {tensor.shape}"
            )
        order = row_order(header, name, tensor.shape[0])
        b = layer.b if order is None else layer.b[order]
        result[name] = LoraLayer(layer.module, layer.a, b, layer.scale, layer.alpha)
    return result


def row_order(header: Header, name: str, n_rows: int) -> npt.NDArray[np.intp] | None:
    """Return, for a tensor of a GGUF, the Hugging Face row that each of its rows is, or None where they agree."""
    if header.architecture != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return None
    heads = int(header.metadata["llama.attention.head_count"])
    if name.endswith("attn_k.weight"):
        heads = int(header.metadata.get("llama.attention.head_count_kv", heads))
    return rope_permutation(n_rows, heads)


def rope_permutation(n_rows: int, n_heads: int) -> npt.NDArray[np.intp]:
    """Return the order in which llama.cpp stores the q or k rows of a llama model.

    Hugging Face keeps the two halves of each rotated pair half a head apart, llama.cpp side by side: row ``i`` of the
    GGUF is row ``result[i]`` of the Hugging Face matrix.
    """
    halves = np.arange(n_rows, dtype=np.intp).reshape(n_heads, 2, n_rows // n_heads // 2)
    return halves.swapaxes(1, 2).reshape(-1)


def _architecture(header: Header) -> gguf.MODEL_ARCH:
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == header.architecture)


def _pairs(folder: Path, stored: dict[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """Group the stored tensors as module -> {"A": ..., "B": ...}, refusing anything else."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in stored.items():
        match = _LORA_KEY.match(key)
        if match is None:
            what = "it changes the embeddings" if "embed" in key else "it holds more than LoRA matrices"
            raise _bad(folder, f"{what} ({key})")
        pairs.setdefault(match["module"], {})[match["part"]] = tensor
    if not pairs:
        raise _bad(folder, "it holds no LoRA matrices")
    return pairs


def _layer(folder: Path, config: dict[str, Any], module: str, parts: dict[str, StoredTensor]) -> LoraLayer:
    if set(parts) != {"A", "B"}:
        raise _bad(folder, f"its module {module} has only one of the two LoRA matrices")
    rank = int(_for_module(config, "rank_pattern", "r", module))
    alpha = float(_for_module(config, "alpha_pattern", "lora_alpha", module))
    shape_a, shape_b = parts["A"].shape, parts["B"].shape
    if len(shape_a) != 2 or len(shape_b) != 2 or shape_a[0] != rank or shape_b[1] != rank:
        raise _bad(folder, f"its module {module} has matrices {shape_a} and {shape_b}, which do not fit rank {rank}")
    a, b = parts["A"].read(), parts["B"].read()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise _bad(folder, f"its module {module} holds weights that are not finite numbers")
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return LoraLayer(module, a, b, scale, alpha)


def _for_module(config: dict[str, Any], pattern: str, default: str, module: str) -> Any:
    """Return a module's rank or alpha: the first pattern that matches its name's end, as PEFT reads them."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return config[default]


def _read_base(folder: Path) -> BaseClaim | None:
    if not (folder / BASE_FILE).exists():
        return None
    base = read_json_object(folder / BASE_FILE, partial(_bad, folder))
    digest = base.get("gguf_sha256")
    try:
        return BaseClaim(str(base["model_id"]), digest and str(digest).lower(), str(base["architecture"]))
    except KeyError as error:
        raise _bad(folder, f"its {BASE_FILE} lacks {error}") from error


def _bad(folder: Path, reason: str, hint: str = "") -> AdapterError:
    return AdapterError(
        f"The adapter {folder.name} cannot be used: {reason}", hint or "Train or choose another adapter."
    )
