"""Read safetensors with numpy alone, bfloat16 included, without loading the file into memory.

Format: https://huggingface.co/docs/safetensors: a length, a JSON header, then the tensors as raw little-endian bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.errors import ConvertError
from convert.files import explained
from convert.tensors import Floats

_DTYPES: dict[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file: shape as (rows..., row length), dtype name, place in the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, rows: slice | npt.NDArray[np.intp] | None = None) -> Floats:
        """Return the tensor, or some rows of its first dimension, as float32.

        Raises:
            ConvertError: the dtype is no floating-point type of 16 bits or more.
        """
        if self.dtype not in _DTYPES:
            raise ConvertError(
                f"{self.name} in {self.path.name} is stored as {self.dtype}, which is not supported",
                "Use weights in float32, float16 or bfloat16.",
            )
        with explained(self.path):
            stored = np.memmap(self.path, _DTYPES[self.dtype], "r", self.offset, self.shape)
        raw = np.asarray(stored if rows is None else stored[rows])
        return widen_bf16(raw) if self.dtype == "BF16" else raw.astype(np.float32)


def widen_bf16(raw: npt.NDArray[Any]) -> Floats:
    """Return bfloat16 values, given as uint16, as float32: the same bits with 16 zeros behind."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; weights are read only when asked for.

    Raises:
        ConvertError: missing, truncated or malformed.
    """
    with explained(path), open(path, "rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise _malformed(path)
        raw = file.read(length)
    try:
        entries = json.loads(raw)
        entries.pop("__metadata__", None)
        return {name: _stored(path, name, entry, 8 + length, size) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(path) from error


def _stored(path: Path, name: str, entry: dict[str, Any], data_offset: int, size: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    if not 0 <= start <= end <= size - data_offset or any(n < 0 for n in shape):
        raise ValueError("outside the file")
    dtype = str(entry["dtype"])
    if dtype in _DTYPES and np.prod(shape, dtype=object) * np.dtype(_DTYPES[dtype]).itemsize != end - start:
        raise ValueError("the shape and the number of bytes differ")
    return StoredTensor(path, name, dtype, shape, data_offset + start)


def _malformed(path: Path) -> ConvertError:
    return ConvertError(f"{path.name} is damaged: it is not a whole safetensors file", "Download or train it again.")
