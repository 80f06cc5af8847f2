"""Merge a LoRA adapter into a Hugging Face base with torch and PEFT; the result is an ordinary model folder."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.adapter import Adapter, layers_by_tensor, read_adapter, require_base
from convert.errors import AdapterError, ConvertError, FileError, ModelFolderError
from convert.families import tied
from convert.files import explained
from convert.header import check_header
from convert.hf_folder import METADATA_FILE
from convert.hf_to_gguf import read_convertible
from convert.hf_tokenizer import correct_pre_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DTYPES = ("bfloat16", "float32")


def merge_hf(
    base: "Path | str | PreTrainedModel",
    adapter_dir: Path | str,
    out_dir: Path | str,
    dtype: str = "bfloat16",
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write the base with the adapter merged in as a Hugging Face folder (safetensors, config, tokenizer).

    The sum is taken in float32 and rounded once, at the end. Base, adapter and their match are checked before anything
    is loaded.

    Args:
        base: a GGUF file, a model folder that could become one, or a loaded model (which is changed in place, and has
            no tokenizer to save).
        adapter_dir: a PEFT LoRA folder, held against the same list of refusals as the torch-free merge.
        out_dir: a folder that does not exist yet or is empty.
        dtype: "bfloat16" or "float32".
        metadata: plain values, kept in ``METADATA_FILE`` for ``hf_to_gguf``.

    Raises:
        AdapterError, GGUFError, ModelFolderError: the adapter or the base cannot be used, or they do not belong
            together. FileError: ``out_dir`` is in the way.
    """
    if dtype not in _DTYPES:
        raise ConvertError(f"Unknown dtype {dtype!r}", f"Choose one of {', '.join(_DTYPES)}.")
    out_dir = Path(out_dir).absolute()
    adapter = read_adapter(adapter_dir)
    if isinstance(base, str | Path):
        _require_match(adapter, Path(base))
    with explained(out_dir):
        if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
            raise FileError(f"{out_dir} is there already", "Choose another folder, or remove this one.")
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".partial", dir=out_dir.parent))
        try:
            _merge(base, Path(adapter_dir), temporary, dtype)
            if metadata:
                (temporary / METADATA_FILE).write_text(json.dumps(dict(metadata), indent=2) + "\n", encoding="utf-8")
            if out_dir.exists():
                out_dir.rmdir()
            temporary.chmod(0o755)
            temporary.replace(out_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return out_dir


def _require_match(adapter: Adapter, base: Path) -> None:
    """Refuse a base that cannot be used, and an adapter that was not made for it."""
    if base.suffix == ".gguf":
        header = check_header(base)
        layers_by_tensor(adapter, header)
        require_base(adapter, base, header)
        return

    def misfit(reason: str) -> AdapterError:
        name = adapter.path.name
        return AdapterError(f"The adapter {name} cannot be used: {reason}", "Use the base that it was made for.")

    folder = read_convertible(base)[0]
    if adapter.base is not None and adapter.base.architecture != folder.architecture:
        raise misfit(f"it was trained on a {adapter.base.architecture} model and the base is {folder.architecture}")
    for layer in adapter.layers:
        tensor = None if layer.module == "lm_head" and tied(folder) else folder.tensors.get(f"{layer.module}.weight")
        if tensor is None:
            raise misfit(f"its module {layer.module} has no tensor in {base.name}")
        if tensor.shape != layer.shape:
            raise misfit(f"its module {layer.module} changes {layer.shape} weights, and {base.name} has {tensor.shape}")
    named = adapter.base.model_id if adapter.base else str(adapter.config.get("base_model_name_or_path") or "")
    if _is_another(named, base.resolve()):
        raise misfit(f"it was trained on another base, {named}")


def _is_another(named: str, folder: Path) -> bool:
    """Say whether a base that is named by its path or its id on the hub is surely not this folder; it may be a copy."""
    if (Path(named or "-") / "config.json").is_file():
        return Path(named).resolve() != folder
    in_the_hubs_cache = any(part.startswith("models--") for part in folder.parts)
    is_id = re.fullmatch(r"[^/]+/[^/]+", named) is not None
    return in_the_hubs_cache and is_id and f"models--{named.replace('/', '--')}" not in folder.parts


def _merge(base: Any, adapter_dir: Path, out_dir: Path, dtype: str) -> None:
    try:
        import torch
        from peft import PeftModel
    except ImportError as error:
        missing = f"Merging with torch needs the package {error.name}"
        raise ConvertError(missing, 'Install it with: pip install ".[train]"') from None

    model, tokenizer = load_base(base) if isinstance(base, str | Path) else (base.to(torch.float32), None)
    try:
        merged = PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelFolderError(
            f"The adapter does not fit this base: {_first_line(error)}", "Use the base it was made for."
        ) from error
    merged.to(getattr(torch, dtype)).save_pretrained(out_dir, safe_serialization=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(out_dir)


def load_base(path: Path | str) -> tuple[Any, Any]:
    """Load a causal language model in float32, and its tokenizer, from a folder or a GGUF file, without a network.

    Pickled weights are not read, and code that comes with a model is not run.

    Raises:
        GGUFError: the file is malformed. ModelFolderError: transformers cannot load it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = Path(path)
    header = check_header(path) if path.suffix == ".gguf" else None
    source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights: dict[str, Any] = {"use_safetensors": True}
    folder = path
    if header is not None:
        folder, source["gguf_file"] = path.parent, path.name
        weights = {"quantization_config": GgufConfig(dequantize=True)}  # else the weights stay packed
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source, **weights)
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelFolderError(
            f"{path} cannot be loaded: {_first_line(error)}", "Give a model folder or a GGUF file."
        ) from error
    if header is not None:
        correct_pre_tokenizer(tokenizer, str(header.metadata.get("tokenizer.ggml.pre", "default")))
    return model, tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
