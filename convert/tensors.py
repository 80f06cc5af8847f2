"""Weights as numpy arrays: from the bytes of any ggml type to float32 and back, a few million weights at a time."""

import re
from collections.abc import Iterator
from typing import TypeAlias

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType

from convert.errors import GGUFError
from convert.files import explained
from convert.header import GGML_TYPES, Header, TensorInfo

Floats: TypeAlias = npt.NDArray[np.float32]

_CHUNK = 1 << 22  # weights; 16 MB as float32, so that memory does not grow with the model

_SIZES = {name: (block, n_bytes) for name, block, n_bytes in GGML_TYPES.values()}


def block_of(name: str) -> int:
    """Return the number of the block that a tensor belongs to, -1 where it belongs to none."""
    found = re.match(r"blk\.(\d{1,3})\.", name)
    return int(found[1]) if found else -1


def n_bytes_of(type_name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes a tensor of this type and shape takes."""
    block, block_bytes = _SIZES[type_name]
    return int(np.prod(shape, dtype=np.int64)) // block * block_bytes


def encode(weights: Floats, type_name: str) -> npt.NDArray[np.uint8]:
    """Quantize float32 rows to the bytes of a ggml type (nearest rounding, as ggml's reference does)."""
    encoded = gguf.quants.quantize(np.ascontiguousarray(weights, dtype=np.float32), GGMLQuantizationType[type_name])
    return np.ascontiguousarray(encoded).view(np.uint8).reshape(-1)


def decode(raw: npt.NDArray[np.uint8], type_name: str, row_length: int) -> Floats:
    """Return the float32 rows that the bytes of a ggml type stand for; shape (rows, row_length)."""
    block, block_bytes = _SIZES[type_name]
    rows = raw.reshape(-1, row_length // block * block_bytes)
    decoded = gguf.quants.dequantize(rows, GGMLQuantizationType[type_name])
    return np.asarray(decoded, dtype=np.float32).reshape(-1, row_length)


def row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices over the rows of a tensor, each of a few million weights at most (at least one row)."""
    n_rows = int(np.prod(shape[:-1], dtype=np.int64))
    step = max(1, _CHUNK // shape[-1])
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def read_rows(header: Header, tensor: TensorInfo, rows: slice) -> Floats:
    """Return some rows of a tensor of a GGUF as float32, shape (rows, row length).

    Raises:
        GGUFError: the file became shorter, or the tensor's type cannot be turned into floats.
    """
    row_bytes = n_bytes_of(tensor.type, tensor.shape[-1:])
    with explained(header.path), open(header.path, "rb") as file:
        file.seek(tensor.offset + rows.start * row_bytes)
        raw = np.fromfile(file, dtype=np.uint8, count=(rows.stop - rows.start) * row_bytes)
    if raw.size != (rows.stop - rows.start) * row_bytes:
        raise GGUFError(f"{header.path.name} became shorter while it was read")
    try:
        return decode(raw, tensor.type, tensor.shape[-1])
    except NotImplementedError as error:
        raise GGUFError(
            f"{tensor.name} in {header.path.name} has the type {tensor.type}, which cannot be read"
        ) from error


def read_tensor(header: Header, tensor: TensorInfo) -> Floats:
    """Return a whole tensor of a GGUF as float32 in its own shape."""
    n_rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
    return read_rows(header, tensor, slice(0, n_rows)).reshape(tensor.shape)
