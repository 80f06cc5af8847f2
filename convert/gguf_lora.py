"""Write a PEFT adapter as a GGUF-LoRA file, which llama.cpp adds to a base model while it runs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf.constants import GGUFValueType
from gguf.gguf_writer import GGUFValue

from convert.adapter import LoraLayer, layers_by_tensor, read_adapter, require_base
from convert.errors import ConvertError, GGUFError
from convert.files import replacing
from convert.gguf_file import TensorPlan, own_fields, write_gguf
from convert.header import check_header, read_header
from convert.tensors import Floats

_FILE_TYPES = {"F32": 0, "F16": 1}


def adapter_to_gguf(
    base_gguf: Path | str,
    adapter_dir: Path | str,
    out: Path | str,
    file_type: str = "F16",
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a PEFT LoRA folder as one GGUF-LoRA file for this base.

    llama.cpp scales every matrix by one ``alpha`` / its rank; where the adapter's own scales differ between modules
    (patterns, rsLoRA with several ranks), the difference is taken into the B matrices.

    Args:
        base_gguf: the base, whose tensor names, shapes and row order the file follows.
        adapter_dir: a PEFT LoRA folder.
        out: the file to write; it appears whole or not at all.
        file_type: "F16" or "F32".
        metadata: as for ``convert.merge.merge_adapter``.

    Raises:
        GGUFError, AdapterError: as for merging. FileError: disk full, no permission and the like.
    """
    if file_type not in _FILE_TYPES:
        raise ConvertError(f"A GGUF-LoRA file cannot be {file_type}", "Choose F16 or F32.")
    base = check_header(base_gguf)
    adapter = read_adapter(adapter_dir)
    layers = layers_by_tensor(adapter, base)
    base_sha256 = require_base(adapter, base_gguf, base)
    alpha = _common_alpha(layers)
    matrices: dict[str, Floats] = {}
    for name, layer in sorted(layers.items()):
        matrices[f"{name}.lora_a"] = layer.a
        matrices[f"{name}.lora_b"] = layer.b * (layer.scale * layer.a.shape[0] / alpha)
    plans = [TensorPlan(name, file_type, matrix.shape) for name, matrix in matrices.items()]
    fields = _fields(alpha, file_type, base_sha256, adapter.sha256) | own_fields(metadata or {})

    def rows_of(plan: TensorPlan) -> Iterator[Floats]:
        return iter([matrices[plan.name]])

    with replacing(out) as temporary:
        write_gguf(temporary, base.architecture, fields, plans, rows_of)
        if len(read_header(temporary).tensors) != len(plans):
            raise GGUFError(f"{Path(out).name} was read back and differs from what was written")
    return Path(out)


def _common_alpha(layers: Mapping[str, LoraLayer]) -> float:
    """Return the alpha that most modules imply (scale * rank), so that few or none need rescaling."""
    implied = Counter(layer.scale * layer.a.shape[0] for layer in layers.values())
    return implied.most_common(1)[0][0] or 1.0


def _fields(alpha: float, file_type: str, base_sha256: str, adapter_sha256: str) -> dict[str, GGUFValue]:
    fields = own_fields(
        {
            "general.type": "adapter",
            "general.file_type": _FILE_TYPES[file_type],
            "base_sha256": base_sha256,
            "adapter_sha256": adapter_sha256,
        }
    )
    return fields | {
        "adapter.type": GGUFValue("lora", GGUFValueType.STRING),
        "adapter.lora.alpha": GGUFValue(alpha, GGUFValueType.FLOAT32),
    }
