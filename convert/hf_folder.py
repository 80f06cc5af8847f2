"""A Hugging Face model folder: its config and its stored tensors, with everything that cannot be converted refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, ModelFolderError
from convert.files import read_json_object
from convert.safetensors_file import StoredTensor, read_safetensors

# class named in config.json -> architecture in GGUF
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
}

METADATA_FILE = "emotion_lrm.json"
"""What a merged model has to say of itself, as JSON; it becomes the metadata of the GGUF."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
_IGNORED = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that can be converted: its config, its GGUF architecture, its tensors by Hugging Face name."""

    path: Path
    config: Mapping[str, Any]
    architecture: str
    tensors: Mapping[str, StoredTensor]

    def fail(self, reason: str, hint: str = "") -> ModelFolderError:
        """Return the error that says why this folder is refused."""
        return bad_folder(self.path, reason, hint)


def read_folder(folder: Path | str) -> ModelFolder:
    """Read a model folder, without loading any weights.

    Raises:
        ModelFolderError: no config or tokenizer, an unknown architecture, remote code, quantized or pickled weights, a
            missing shard.
    """
    folder = Path(folder)
    config = read_json(folder, "config.json")
    architecture = _architecture(folder, config)
    if not (folder / "tokenizer.json").is_file():
        raise bad_folder(folder, "it has no tokenizer.json", "Save its fast tokenizer into the folder.")
    return ModelFolder(folder, config, architecture, _tensors(folder))


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        ModelFolderError: the file is missing, or holds no JSON object.
    """
    return read_json_object(folder / name, partial(bad_folder, folder))


def bad_folder(folder: Path, reason: str, hint: str = "") -> ModelFolderError:
    """Return the error that says why a folder is refused."""
    return ModelFolderError(f"{folder.name} cannot be converted: {reason}", hint or "Choose another model.")


def _architecture(folder: Path, config: dict[str, Any]) -> str:
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if "auto_map" in config:
        raise bad_folder(folder, f"{name} needs code of its own (auto_map), which is never run")
    if name not in ARCHITECTURES:
        raise bad_folder(folder, f"its architecture is {name}, and the known ones are {', '.join(ARCHITECTURES)}")
    if config.get("quantization_config"):
        method = (config["quantization_config"] or {}).get("quant_method", "quantized")
        raise bad_folder(folder, f"its weights are quantized already ({method})", "Use the unquantized model.")
    return ARCHITECTURES[name]


def _tensors(folder: Path) -> dict[str, StoredTensor]:
    shards = _shards(folder)
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        try:
            stored = read_safetensors(folder / shard)
        except ConvertError as error:
            raise bad_folder(folder, str(error), error.hint) from error
        tensors |= {name: tensor for name, tensor in stored.items() if not name.endswith(_IGNORED)}
    if not tensors:
        raise bad_folder(folder, "it holds no weights")
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            reason = f"its weights are quantized already ({name} is stored as {tensor.dtype})"
            raise bad_folder(folder, reason, "Use the unquantized model.")
    return tensors


def _shards(folder: Path) -> list[str]:
    if (folder / _INDEX).is_file():
        names = read_json(folder, _INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise bad_folder(folder, f"its {_INDEX} has no weight_map")
        shards = sorted(set(names.values()))
        for shard in shards:
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise bad_folder(folder, f"its shard {shard} is missing", "Download it again.")
        return shards
    if (folder / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if any(any(folder.glob(pattern)) for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl")):
        raise bad_folder(
            folder, "its weights are pickled, and loading a pickle runs whatever it holds", "Save it as safetensors."
        )
    raise bad_folder(folder, f"it has no {_WEIGHTS}", "Download it again.")
