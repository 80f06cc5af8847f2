"""Merge a LoRA adapter into a base GGUF without torch: per tensor, dequantize, add ``scale * B @ A``, quantize."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf.gguf_writer import GGUFValue

from convert.adapter import Adapter, LoraLayer, layers_by_tensor, read_adapter, require_base
from convert.errors import ConvertError
from convert.file_types import DIRECT_TYPES, file_type_number, require_file_type, tensor_type
from convert.files import replacing
from convert.gguf_file import (
    PREFIX,
    Progress,
    TensorPlan,
    as_field,
    copied_fields,
    own_fields,
    read_back,
    write_gguf,
)
from convert.header import Header, check_header
from convert.rounding import rounding_of
from convert.tensors import Floats, read_rows, row_slices

_CHAT_TEMPLATE = "tokenizer.chat_template"


def merge_adapter(
    base_gguf: Path | str,
    adapter_dir: Path | str,
    out: Path | str,
    file_type: str = "BF16",
    metadata: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the base with the adapter merged in, as one GGUF.

    Nothing is written before the base, the adapter and their match have been checked; ``out`` appears whole or not at
    all. About 150 MB of memory whatever the size of the model.

    Args:
        base_gguf: the base, of any ggml type.
        adapter_dir: a PEFT LoRA folder (see ``convert.adapter``).
        out: the file to write; an old one is replaced.
        file_type: one of ``DIRECT_TYPES``.
        metadata: plain values; keys under ``general.`` are written as they are, all others under ``emotion_lrm.``.
        chat_template: replaces ``tokenizer.chat_template``; None keeps the base's.
        progress: called as ``progress(weights_done, weights_in_all, tensor_name)``.

    Raises:
        GGUFError, AdapterError: the base or the adapter cannot be used, or do not belong together.
        FileError: disk full, no permission and the like.
    """
    file_type = require_file_type(file_type)
    if file_type not in DIRECT_TYPES:
        raise ConvertError(f"{file_type} cannot be written while merging", "Use the command convert build.")
    base = check_header(base_gguf)
    adapter = read_adapter(adapter_dir)
    layers = layers_by_tensor(adapter, base)
    fields = _fields(base, adapter, require_base(adapter, base_gguf, base), file_type)
    fields |= own_fields(metadata or {})
    if chat_template is not None:
        fields[_CHAT_TEMPLATE] = as_field(chat_template)
    plans = merged_plans(base, file_type)

    def rows_of(plan: TensorPlan) -> Iterator[Floats]:
        return merged_rows(base, plan.name, layers.get(plan.name))

    with replacing(out) as temporary:
        write_gguf(temporary, base.architecture, fields, plans, rows_of, progress, rounding_of(file_type))
        read_back(temporary, plans)
    return Path(out)


def merged_plans(base: Header, file_type: str) -> list[TensorPlan]:
    """Return the tensors of the merged model: those of the base, in the types of the new file type."""
    return [TensorPlan(t.name, tensor_type(file_type, t.name, t.shape), t.shape) for t in base.tensors]


def merged_size(plans: Sequence[TensorPlan], base: Header) -> int:
    """Return about how many bytes a file of these tensors takes, metadata included."""
    return sum(plan.n_bytes + base.alignment for plan in plans) + base.data_offset + (1 << 20)


def merged_rows(base: Header, name: str, layer: LoraLayer | None) -> Iterator[Floats]:
    """Yield the rows of a base tensor as float32, with the adapter's change added where there is one."""
    tensor = base.tensor(name)
    assert tensor is not None
    for rows in row_slices(tensor.shape):
        weights = read_rows(base, tensor, rows)
        if layer is not None:
            weights = weights + layer.scale * (layer.b[rows] @ layer.a)
        yield weights


def _fields(base: Header, adapter: Adapter, base_sha256: str, file_type: str) -> dict[str, GGUFValue]:
    """Return the base's metadata, brought up to date, and where the new model comes from."""
    fields = copied_fields(base)
    for key in [key for key in fields if key.startswith(("split.", "quantize.", PREFIX))]:
        del fields[key]
    fields.pop("general.finetune", None)
    model_id = adapter.base.model_id if adapter.base else str(adapter.config.get("base_model_name_or_path") or "")
    origin = {"general.base_model.count": 1, "general.base_model.0.name": model_id} if model_id else {}
    return fields | own_fields(
        {
            **origin,
            "general.type": "model",
            "general.file_type": file_type_number(file_type),
            "general.quantization_version": 2,
            "file_type": file_type,
            "base_sha256": base_sha256,
            "adapter_sha256": adapter.sha256,
        }
    )
