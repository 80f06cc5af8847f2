"""Write a GGUF: metadata first, then every tensor as a stream of rows; then seal it with a hash of its content."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType, GGUFValueType
from gguf.gguf_writer import GGUFValue

from convert.errors import ConvertError, GGUFError
from convert.files import explained
from convert.header import Header, check_header, read_array, read_header
from convert.tensors import Floats, encode, n_bytes_of

Progress = Callable[[int, int, str], None]
"""Called with (work done, work in all, what is being done); the unit of work is one weight."""

PREFIX = "emotion_lrm."
CONTENT_HASH = PREFIX + "content_sha256"
_UNSEALED = "0" * 64


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written: its name, ggml type name, and shape as (rows..., row length)."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size in the file, without padding."""
        return n_bytes_of(self.type, self.shape)

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))


Encode = Callable[[TensorPlan, Floats], npt.NDArray[np.uint8]]
"""Turns rows of a tensor into the bytes of its type."""


def nearest(plan: TensorPlan, rows: Floats) -> npt.NDArray[np.uint8]:
    """Round every weight by itself, as ggml's reference does."""
    return encode(rows, plan.type)


def write_gguf(
    path: Path,
    architecture: str,
    fields: Mapping[str, GGUFValue],
    plans: Sequence[TensorPlan],
    rows_of: Callable[[TensorPlan], Iterable[Floats]],
    progress: Progress | None = None,
    rounded: Encode = nearest,
) -> None:
    """Write a sealed GGUF file. No more than one chunk of rows is in memory at a time.

    Args:
        path: the file; it is overwritten in place, so give a temporary neighbour.
        architecture: goes into ``general.architecture``.
        fields: metadata in the order to be written.
        plans: the tensors, in order.
        rows_of: yields the float32 rows of a tensor in order, in chunks.
        progress: see ``Progress``.
        rounded: how floats become the bytes of the tensor's type.

    Raises:
        ConvertError: weights that are not finite. FileError: the disk is full and the like.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {CONTENT_HASH: as_field(_UNSEALED), **fields}.items():
        if key != "general.architecture":
            writer.add_key_value(key, value.value, value.type, value.sub_type)
    for plan in plans:
        kind = GGMLQuantizationType[plan.type]
        writer.add_tensor_info(plan.name, plan.shape, np.dtype(np.float32), plan.n_bytes, raw_dtype=kind)
    with explained(path):
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            _write_tensors(writer, plans, rows_of, progress, rounded)
        finally:
            writer.close()
    seal(path)


def _write_tensors(
    writer: gguf.GGUFWriter,
    plans: Sequence[TensorPlan],
    rows_of: Callable[[TensorPlan], Iterable[Floats]],
    progress: Progress | None,
    rounded: Encode,
) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    total = sum(plan.n_weights for plan in plans)
    done = 0
    writer.write_padding(file, file.tell())
    for plan in plans:
        start = file.tell()
        for rows in rows_of(plan):
            if not np.isfinite(rows).all():
                raise ConvertError(f"The tensor {plan.name} holds weights that are not finite numbers")
            if progress is not None:
                progress(done, total, plan.name)
            file.write(rounded(plan, rows).data)
            done += rows.size
        if file.tell() - start != plan.n_bytes:
            raise ConvertError(f"The tensor {plan.name} has fewer or more rows than its shape says")
        writer.write_padding(file, plan.n_bytes)
    if progress is not None:
        progress(total, total, "done")


def as_field(value: Any) -> GGUFValue:
    """Return a plain str, bool, int, float or list as a typed GGUF value (floats keep all 64 bits).

    Raises:
        ConvertError: a value that GGUF cannot hold: None, a dict, an empty or mixed list, text that is not Unicode.
    """
    if isinstance(value, list | tuple):
        kinds = {_scalar_type(item) for item in value}
        if kinds == {GGUFValueType.UINT32, GGUFValueType.INT64}:
            kinds = {GGUFValueType.INT64}
        if len(kinds) != 1:
            raise ConvertError(f"A metadata list must hold values of one kind and at least one: {value!r}")
        return GGUFValue(list(value), GGUFValueType.ARRAY, kinds.pop())
    return GGUFValue(value, _scalar_type(value))


def _scalar_type(value: Any) -> GGUFValueType:
    match value:
        case bool():
            return GGUFValueType.BOOL
        case int() if 0 <= value < 1 << 32:
            return GGUFValueType.UINT32
        case int() if -(1 << 63) <= value < 1 << 63:
            return GGUFValueType.INT64
        case float():
            return GGUFValueType.FLOAT64
        case str() if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
            return GGUFValueType.STRING
    raise ConvertError(f"Metadata cannot hold the value {value!r}")


def copied_fields(header: Header, prefix: str = "") -> dict[str, GGUFValue]:
    """Return the metadata of a GGUF whose keys begin with ``prefix``, arrays in full, ready to be written again."""
    fields = {}
    for key, (value_type, item_type) in header.value_types.items():
        if not key.startswith(prefix):
            continue
        kind = GGUFValueType(value_type)
        if item_type is None:
            fields[key] = GGUFValue(header.metadata[key], kind)
        elif items := read_array(header, key):  # the writer knows no empty arrays, and nobody misses one
            fields[key] = GGUFValue(items, kind, GGUFValueType(item_type))
    return fields


def own_fields(metadata: Mapping[str, Any]) -> dict[str, GGUFValue]:
    """Return caller's metadata as fields: keys under ``general.`` as they are, all others under ``emotion_lrm.``."""
    return {
        key if key.startswith(("general.", PREFIX)) else PREFIX + key: as_field(value)
        for key, value in metadata.items()
    }


def seal(path: Path) -> str:
    """Write into a GGUF the SHA-256 of its own content, and return it.

    The hash is of the whole file with its 64 digits under ``emotion_lrm.content_sha256`` read as zeros, so that one
    file alone can prove that not a bit of it has changed.

    Raises:
        GGUFError: the file has no place for the hash.
    """
    header = read_header(path)
    place = _hash_place(header)
    digest = content_sha256(header)
    with explained(path), open(path, "rb+") as file:
        file.seek(place)
        file.write(digest.encode())
    return digest


def content_sha256(header: Header) -> str:
    """Return the SHA-256 of a sealed file's content, recomputed (see ``seal``)."""
    place = _hash_place(header)
    digest = hashlib.sha256()
    with explained(header.path), open(header.path, "rb") as file:
        digest.update(file.read(place))
        digest.update(_UNSEALED.encode())
        file.seek(place + len(_UNSEALED))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hash_place(header: Header) -> int:
    value = header.metadata.get(CONTENT_HASH)
    if not isinstance(value, str) or len(value) != len(_UNSEALED):
        raise GGUFError(f"{header.path.name} carries no hash of its content", "It was not written by this program.")
    return header.value_offsets[CONTENT_HASH] + 8  # past the length of the string


def read_back(path: Path, plans: Sequence[TensorPlan]) -> Header:
    """Check a file just written: its header, and that each planned tensor is there as planned.

    Raises:
        GGUFError: it is not what was meant to be written.
    """
    header = check_header(path)
    written = [TensorPlan(tensor.name, tensor.type, tensor.shape) for tensor in header.tensors]
    if written != list(plans):
        raise GGUFError(f"{path.name} was read back and differs from what was written", "Check the disk and try again.")
    return header
