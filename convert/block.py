"""One block of a model as a GGUF of its own, which llama.cpp runs on the states that the block before it left."""

import math
from collections.abc import Iterator
from pathlib import Path

from gguf.constants import GGUFValueType
from gguf.gguf_writer import GGUFValue

from convert.gguf_file import TensorPlan, as_field, copied_fields, write_gguf
from convert.header import WINDOW_PATTERN, Header, keeps_to_window
from convert.tensors import Floats, read_rows, row_slices

FIRST = "blk.0."
"""What the names of the block's tensors begin with in its own file."""

_EMBEDDINGS = "token_embd.weight"
_GEMMA_27B = 62  # blocks, by which llama.cpp knows the one Gemma 3 whose attention it scales in another way


def write_block(header: Header, block: int, path: Path) -> Path:
    """Write a block as a model of that block alone, with one token and no head; return ``path``.

    Args:
        header: of the model, which holds floats.
        block: its number, from 0.
        path: the file, overwritten in place.

    Raises:
        ConvertError: weights that are not finite. FileError: the disk is full and the like.
    """
    here = f"blk.{block}."
    sources = {
        tensor.name.replace(here, FIRST): tensor
        for tensor in header.tensors
        if tensor.name.startswith(here) or not tensor.name.startswith(("blk.", "output."))
    }
    plans = [TensorPlan(name, tensor.type, tensor.shape) for name, tensor in sources.items() if name != _EMBEDDINGS]
    plans.append(TensorPlan(_EMBEDDINGS, "F32", (1, sources[_EMBEDDINGS].shape[1])))
    query_scale = _query_scale(header)

    def rows_of(plan: TensorPlan) -> Iterator[Floats]:
        scale = query_scale if plan.name == f"{FIRST}attn_q_norm.weight" else 1
        return (scale * read_rows(header, sources[plan.name], rows) for rows in row_slices(plan.shape))

    write_gguf(path, header.architecture, _fields(header, block), plans, rows_of)
    return path


def _fields(header: Header, block: int) -> dict[str, GGUFValue]:
    arch = header.architecture
    fields = copied_fields(header, f"{arch}.")
    fields.pop(f"{arch}.{WINDOW_PATTERN}", None)
    for key, field in fields.items():
        if field.type == GGUFValueType.ARRAY and len(field.value) == header.metadata[f"{arch}.block_count"]:
            fields[key] = GGUFValue([field.value[block]], field.type, field.sub_type)
    if arch == "gemma3" and not keeps_to_window(header, block):
        # llama.cpp asserts that a model with a window has a block that keeps to it
        fields[f"{arch}.attention.sliding_window"] = as_field(0)
    return fields | {
        f"{arch}.block_count": as_field(1),
        f"{arch}.vocab_size": as_field(1),
        "tokenizer.ggml.model": as_field("no_vocab"),
        "tokenizer.ggml.tokens": as_field(["-"]),
    }


def _query_scale(header: Header) -> float:
    """What the norm of the queries must make up for, as the block alone is not known for one of the 27B."""
    arch = header.architecture
    if (arch, header.metadata[f"{arch}.block_count"]) != ("gemma3", _GEMMA_27B):
        return 1.0
    width, heads = header.metadata[f"{arch}.embedding_length"], header.metadata[f"{arch}.attention.head_count"]
    head: int = header.metadata.get(f"{arch}.attention.key_length", width // heads)
    return math.sqrt(head * heads / width)
