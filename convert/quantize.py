"""Turn a GGUF of floats into one of fewer bits, read it back, and say what each tensor became."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, GGUFError
from convert.file_types import DIRECT_TYPES, MIXED, NATIVE_TYPES, file_type_number, require_file_type, tensor_type
from convert.files import replacing, require_space
from convert.gguf_file import (
    CONTENT_HASH,
    PREFIX,
    Progress,
    TensorPlan,
    copied_fields,
    own_fields,
    read_back,
    seal,
    write_gguf,
)
from convert.header import GGML_TYPES, Header, check_header
from convert.rounding import MomentsOf, rounding_of, unknown
from convert.tensors import Floats, block_of, read_rows, row_slices

_FLOATS = ("F32", "F16", "BF16")
_MATRIX_TYPE = {"Q4_K_M": "Q4_K", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL", MIXED: "Q4_0"}
_BLOCKS = {name: block for name, block, _ in GGML_TYPES.values()}


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What a GGUF really holds.

    Attributes:
        file_type: the file type asked for.
        n_bytes: size of the file.
        bits_per_weight: 8 * bytes of all tensors / number of weights, as counted from the tensors.
        tensors: ggml type -> number of tensors.
        fallbacks: tensor name -> why it did not get the file type's own type.
    """

    file_type: str
    n_bytes: int
    bits_per_weight: float
    tensors: dict[str, int]
    fallbacks: dict[str, str]


def quantize(
    source: Path | str,
    out: Path | str,
    file_type: str,
    progress: Progress | None = None,
    threads: int | None = None,
    texts: Sequence[str] = (),
) -> QuantizationReport:
    """Write a GGUF of floats (F32, F16 or BF16) in another file type.

    Args:
        source: the GGUF to read; it must hold floats, for quantizing twice loses twice.
        out: the file to write; it appears whole or not at all.
        file_type: one of ``FILE_TYPES``; K-quants and IQ4_NL go through llama.cpp's quantizer, the rest through numpy.
        progress: called as ``progress(weights_done, weights_in_all, what)``.
        threads: for llama.cpp's quantizer, and for reading ``texts``; None takes every core.
        texts: such as the model is for, control tokens included: the mixed file type rounds so that what they need
            changes least, and keeps a block at a time in a file beside ``out`` to read them. The others round by the
            weights alone.

    Raises:
        ConvertError: an unknown file type, a source that is quantized already, or a quantizer that failed.
    """
    file_type = require_file_type(file_type)
    header = check_header(source)
    already = sorted({t.type for t in header.tensors if len(t.shape) > 1 and t.type not in _FLOATS})
    if already:
        raise ConvertError(
            f"{header.path.name} is quantized already ({', '.join(already)})", "Start from the F32, F16 or BF16 file."
        )
    with replacing(out) as temporary:
        if file_type in NATIVE_TYPES:
            _quantize_native(header, temporary, file_type, progress, threads)
        else:
            _quantize_direct(header, temporary, file_type, progress, threads, texts if file_type == MIXED else ())
        return quantization_report(temporary, file_type)


def quantization_report(path: Path | str, file_type: str | None = None) -> QuantizationReport:
    """Count what a GGUF holds; ``file_type`` (default: what its metadata says) decides what counts as a fallback."""
    header = check_header(path)
    named = file_type or str(header.metadata.get(PREFIX + "file_type", ""))
    weights = sum(tensor.n_elements for tensor in header.tensors)
    return QuantizationReport(
        file_type=named,
        n_bytes=header.file_size,
        bits_per_weight=8 * sum(tensor.n_bytes for tensor in header.tensors) / weights,
        tensors=dict(Counter(tensor.type for tensor in header.tensors)),
        fallbacks={t.name: why for t in header.tensors if (why := _why_not(named, t.name, t.type, t.shape))},
    )


def _why_not(file_type: str, name: str, type_name: str, shape: tuple[int, ...]) -> str | None:
    """Explain why a matrix has another type than its file type's name says; None where it has not."""
    wanted = _MATRIX_TYPE.get(file_type, file_type)
    if len(shape) < 2 or wanted not in _BLOCKS or type_name == wanted:
        return None
    if shape[-1] % _BLOCKS[wanted]:
        return f"{type_name}: rows of {shape[-1]} do not divide into blocks of {_BLOCKS[wanted]}"
    if file_type == MIXED and type_name == tensor_type(MIXED, name, shape):
        return f"{type_name}: kept at more bits, for here 4 would lose most"
    if name in ("token_embd.weight", "output.weight"):
        return f"{type_name}: embeddings and head are kept at more bits"
    return f"{type_name}: llama.cpp's recipe gives this tensor another type"


def _moments_of(header: Header, folder: Path, texts: Sequence[str], threads: int | None) -> MomentsOf:
    """Return what finds the moments of the inputs that a matrix meets while the model reads the texts."""
    from convert.activations import in_turn, input_moments

    rounded = {t.name for t in header.tensors if tensor_type(MIXED, t.name, t.shape) == "Q4_0"}
    return in_turn(input_moments(header.path, texts, folder, threads or os.cpu_count() or 1, matrices=rounded))


def _quantize_direct(
    header: Header, out: Path, file_type: str, progress: Progress | None, threads: int | None, texts: Sequence[str]
) -> None:
    assert file_type in DIRECT_TYPES
    # block after block, as moments come
    tensors = {tensor.name: tensor for tensor in sorted(header.tensors, key=lambda tensor: block_of(tensor.name))}
    plans = [TensorPlan(t.name, tensor_type(file_type, t.name, t.shape), t.shape) for t in tensors.values()]
    moments_of = _moments_of(header, out.parent, texts, threads) if texts else unknown

    def rows_of(plan: TensorPlan) -> Iterator[Floats]:
        return (read_rows(header, tensors[plan.name], rows) for rows in row_slices(plan.shape))

    fields = copied_fields(header)
    fields.pop(CONTENT_HASH, None)
    fields |= own_fields(
        {
            "general.file_type": file_type_number(file_type),
            "general.quantization_version": 2,
            "file_type": file_type,
        }
    )
    write_gguf(out, header.architecture, fields, plans, rows_of, progress, rounding_of(file_type, moments_of))
    read_back(out, plans)


def _quantize_native(header: Header, out: Path, file_type: str, progress: Progress | None, threads: int | None) -> None:
    import llama_cpp

    total = sum(tensor.n_elements for tensor in header.tensors)
    require_space(out.parent, total)  # no file type here takes more than 8 bits a weight
    if progress is not None:
        progress(0, total, f"llama.cpp quantizes to {file_type}")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type_number(file_type)
    parameters.nthread = threads or os.cpu_count() or 1
    overrides = _overrides({PREFIX + "file_type": file_type})
    parameters.kv_overrides = overrides
    source, target = (os.fsencode(path) for path in (header.path, out))
    with quiet():
        failed = llama_cpp.llama_model_quantize(source, target, parameters) != 0
    if failed:
        raise ConvertError(f"llama.cpp could not quantize {header.path.name} to {file_type}", "Is the disk full?")
    _check_native(header, out)
    if progress is not None:
        progress(total, total, "done")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep llama.cpp from narrating every tensor on standard error (its warnings pass for errors in this logger)."""
    logger = logging.getLogger("llama-cpp-python")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _overrides(values: dict[str, str]) -> Any:
    """Return llama.cpp's list of metadata to overwrite, closed by an entry with an empty key."""
    import llama_cpp

    overrides = (llama_cpp.llama_model_kv_override * (len(values) + 1))()
    for entry, (key, value) in zip(overrides, values.items(), strict=False):
        entry.key = key.encode()
        entry.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.value.val_str = value.encode()
    return overrides


def _check_native(source: Header, out: Path) -> None:
    written = check_header(out)
    before = sorted((tensor.name, tensor.shape) for tensor in source.tensors)
    if before != sorted((tensor.name, tensor.shape) for tensor in written.tensors):
        raise GGUFError(f"{out.name} was read back and lacks tensors of its source", "Check the disk and try again.")
    if CONTENT_HASH in written.metadata:
        seal(out)
