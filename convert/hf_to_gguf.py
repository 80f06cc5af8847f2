"""Convert a Hugging Face model folder to GGUF: Llama, Qwen2, Qwen3 and Gemma 3, tensor by tensor, without torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.gguf_writer import GGUFValue

from convert.errors import ConvertError
from convert.families import expected_shapes, model_fields, number, offset, rope_factors, row_order, tied
from convert.file_types import DIRECT_TYPES, file_type_number, require_file_type, tensor_type
from convert.files import replacing, require_space
from convert.gguf_file import Progress, TensorPlan, as_field, own_fields, read_back, write_gguf
from convert.hf_folder import METADATA_FILE, ModelFolder, read_folder, read_json
from convert.hf_tokenizer import normalizes_to_nfc, tokenizer_fields
from convert.rounding import rounding_of
from convert.safetensors_file import StoredTensor
from convert.tensors import Floats, row_slices
from convert.tokens import NASTY_TEXTS, composed, differing, folder_tokens, gguf_tokens

_EMBEDDINGS = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_ROPE_FACTORS = "rope_freqs.weight"


def hf_to_gguf(
    folder: Path | str,
    out: Path | str,
    file_type: str = "BF16",
    metadata: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a Hugging Face model folder as one GGUF and prove that its tokens are the folder's own.

    Args:
        folder: config.json, tokenizer.json, one or many safetensors.
        out: the file to write; it appears whole or not at all.
        file_type: one of ``DIRECT_TYPES``.
        metadata: as for ``convert.merge.merge_adapter``; it goes before what the folder's ``METADATA_FILE`` says.
        chat_template, progress: as for ``convert.merge.merge_adapter``.

    Raises:
        ModelFolderError: an architecture, a tokenizer or a setting that is not known; missing or pickled weights;
            tokens that differ. FileError: disk full, no permission and the like.
    """
    file_type = require_file_type(file_type)
    if file_type not in DIRECT_TYPES:
        raise ConvertError(f"{file_type} cannot be written directly", "Write F32 or BF16, then use convert quantize.")
    model, sources, fields = read_convertible(folder)
    plans = [TensorPlan(name, tensor_type(file_type, name, t.shape), t.shape) for name, t in sources.items()]
    told = read_json(model.path, METADATA_FILE) if (model.path / METADATA_FILE).is_file() else {}
    fields = _general_fields(model, file_type) | fields | own_fields(told | dict(metadata or {}))
    if chat_template is not None:
        fields["tokenizer.chat_template"] = as_field(chat_template)
    factors = rope_factors(model)
    if factors is not None:
        plans.append(TensorPlan(_ROPE_FACTORS, "F32", factors.shape))

    def rows_of(plan: TensorPlan) -> Iterator[Floats]:
        if plan.name == _ROPE_FACTORS and factors is not None:
            return iter([factors])
        return _rows(model, sources[plan.name])

    require_space(Path(out).absolute().parent, sum(plan.n_bytes for plan in plans) + (16 << 20))
    with replacing(out) as temporary:
        write_gguf(temporary, model.architecture, fields, plans, rows_of, progress, rounding_of(file_type))
        read_back(temporary, plans)
        _require_same_tokens(model, temporary)
    return Path(out)


def read_convertible(folder: Path | str) -> tuple[ModelFolder, dict[str, StoredTensor], dict[str, GGUFValue]]:
    """Read a model folder, refusing whatever could not become a GGUF: its tensors by GGUF name, and its metadata.

    Raises:
        ModelFolderError: as for ``hf_to_gguf``.
    """
    model = read_folder(folder)
    try:
        fields, sources = model_fields(model), _sources(model)
    except (KeyError, TypeError, ValueError) as error:
        raise model.fail(f"its config.json has a value of the wrong kind: {error}") from error
    n_rows = model.tensors[_EMBEDDINGS].shape[0]
    vocabulary = {f"{model.architecture}.vocab_size": as_field(n_rows)} | tokenizer_fields(model.path, n_rows)
    return model, sources, fields | vocabulary


def _sources(model: ModelFolder) -> dict[str, StoredTensor]:
    """Map every tensor of the folder to its GGUF name, and refuse what is missing, unknown or of another shape."""
    shapes = _shapes(model)
    for key in model.tensors:
        if key not in shapes and not (key == _HEAD and tied(model)):
            raise model.fail(f"its tensor {key} has no place in a {model.architecture} model")
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == model.architecture)
    names = gguf.get_tensor_name_map(arch, number(model, "num_hidden_layers"))
    sources = {}
    for key, shape in shapes.items():
        tensor, name = model.tensors.get(key), names.get_name(key, try_suffixes=(".weight", ".bias"))
        if tensor is None or name is None:
            raise model.fail(f"its tensor {key} is missing")
        if tensor.shape != shape:
            raise model.fail(f"its tensor {key} has the shape {tensor.shape}, not {shape}")
        sources[name] = tensor
    return sources


def _shapes(model: ModelFolder) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that the model must have, by its Hugging Face name, and no others."""
    width, blocks = number(model, "hidden_size"), range(number(model, "num_hidden_layers"))
    embeddings = model.tensors.get(_EMBEDDINGS)
    matrix = (embeddings.shape[0] if embeddings is not None and embeddings.shape else 0, width)
    shapes = {_EMBEDDINGS: matrix, "model.norm.weight": (width,)} | ({} if tied(model) else {_HEAD: matrix})
    return shapes | {f"model.layers.{b}.{end}": shape for b in blocks for end, shape in expected_shapes(model).items()}


def _general_fields(model: ModelFolder, file_type: str) -> dict[str, GGUFValue]:
    return own_fields(
        {
            "general.type": "model",
            "general.name": model.path.resolve().name,
            "general.file_type": file_type_number(file_type),
            "general.quantization_version": 2,
            "file_type": file_type,
        }
    )


def _rows(model: ModelFolder, tensor: StoredTensor) -> Iterator[Floats]:
    """Yield the rows of a stored tensor in llama.cpp's order, a few million weights at a time."""
    if len(tensor.shape) == 1:
        weights = tensor.read()
        order = row_order(model, tensor.name, weights.size)
        yield (weights if order is None else weights[order]) + np.float32(offset(model, tensor.name))
        return
    order = row_order(model, tensor.name, tensor.shape[0])
    for rows in row_slices(tensor.shape):
        yield tensor.read(rows if order is None else order[rows])


def _require_same_tokens(model: ModelFolder, path: Path) -> None:
    """Tokenize the nasty texts, and every added token within a text, both ways."""
    added = [str(token["content"]) for token in read_json(model.path, "tokenizer.json").get("added_tokens") or []]
    texts = [*NASTY_TEXTS, *(f"a{token}b {token} c" for token in added)]
    if normalizes_to_nfc(model.path):
        texts = composed(texts)  # llama.cpp leaves this normalisation to its caller
    different = differing(texts, gguf_tokens(path, texts), folder_tokens(model.path, texts))
    if different:
        raise model.fail(f"llama.cpp tokenizes {len(different)} of {len(texts)} texts in another way: {different[0]!r}")
