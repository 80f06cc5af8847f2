"""Merge a LoRA adapter into a Hugging Face base with torch and PEFT; the result is an ordinary model folder."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.adapter import read_adapter
from convert.errors import ConvertError, FileError, ModelFolderError
from convert.files import explained
from convert.header import check_header
from convert.hf_tokenizer import correct_pre_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DTYPES = ("bfloat16", "float32")


def merge_hf(
    base: "Path | str | PreTrainedModel", adapter_dir: Path | str, out_dir: Path | str, dtype: str = "bfloat16"
) -> Path:
    """Write the base with the adapter merged in as a Hugging Face folder (safetensors, config, tokenizer).

    The sum is taken in float32 and rounded once, at the end.

    Args:
        base: a model folder, a GGUF file, or a loaded model (which is changed in place, and has no tokenizer to save).
        adapter_dir: a PEFT LoRA folder, held against the same list of refusals as the torch-free merge.
        out_dir: a folder that does not exist yet or is empty.
        dtype: "bfloat16" or "float32".

    Raises:
        AdapterError, ModelFolderError: the adapter or the base cannot be used. FileError: ``out_dir`` is in the way.
    """
    if dtype not in _DTYPES:
        raise ConvertError(f"Unknown dtype {dtype!r}", f"Choose one of {', '.join(_DTYPES)}.")
    out_dir = Path(out_dir).absolute()
    read_adapter(adapter_dir)
    with explained(out_dir):
        if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
            raise FileError(f"{out_dir} is there already", "Choose another folder, or remove this one.")
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".partial", dir=out_dir.parent))
        try:
            _merge(base, Path(adapter_dir), temporary, dtype)
            if out_dir.exists():
                out_dir.rmdir()
            temporary.chmod(0o755)
            temporary.replace(out_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return out_dir


def _merge(base: Any, adapter_dir: Path, out_dir: Path, dtype: str) -> None:
    import torch
    from peft import PeftModel

    model, tokenizer = load_base(base) if isinstance(base, str | Path) else (base.to(torch.float32), None)
    try:
        merged = PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelFolderError(
            f"The adapter does not fit this base: {first_line}", "Use the base it was made for."
        ) from error
    merged.to(getattr(torch, dtype)).save_pretrained(out_dir, safe_serialization=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(out_dir)


def load_base(path: Path | str) -> tuple[Any, Any]:
    """Load a causal language model in float32, and its tokenizer, from a folder or a GGUF file, without a network.

    Raises:
        ModelFolderError: transformers cannot load it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = Path(path)
    source: dict[str, Any] = {"local_files_only": True}
    packed: dict[str, Any] = {}
    folder = path
    if path.suffix == ".gguf":
        folder, source["gguf_file"] = path.parent, path.name
        packed["quantization_config"] = GgufConfig(dequantize=True)  # else the weights stay packed
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source, **packed)
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelFolderError(
            f"{path} cannot be loaded: {first_line}", "Give a model folder or a GGUF file."
        ) from error
    if path.suffix == ".gguf":
        correct_pre_tokenizer(tokenizer, str(check_header(path).metadata.get("tokenizer.ggml.pre", "default")))
    return model, tokenizer
