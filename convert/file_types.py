"""The file types on offer, and which ggml type each tensor of a model gets in each of them."""

import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from convert.errors import ConvertError

# file type -> (type of the matrices, type of embeddings and head, number for general.file_type as in llama.h)
_DIRECT: Mapping[str, tuple[str, str, int]] = MappingProxyType(
    {
        "F32": ("F32", "F32", 0),
        "F16": ("F16", "F16", 1),
        "BF16": ("BF16", "BF16", 32),
        "Q8_0": ("Q8_0", "Q8_0", 7),
        "Q4_0": ("Q4_0", "Q4_0", 2),
        "Q4_0_MIXED": ("Q4_0", "Q8_0", 2),
        "Q4_1": ("Q4_1", "Q4_1", 3),
        "Q5_0": ("Q5_0", "Q5_0", 8),
        "Q5_1": ("Q5_1", "Q5_1", 9),
    }
)
MIXED = "Q4_0_MIXED"
"""Q4_0 for speed, rounded with care (``convert.rounding``), with 8 bits where 4 lose most."""

# file type -> llama_ftype; llama.cpp chooses tensor by tensor
_NATIVE: Mapping[str, int] = MappingProxyType({"Q4_K_M": 15, "Q6_K": 18, "IQ4_NL": 25})

DIRECT_TYPES = tuple(_DIRECT)
"""File types that numpy writes directly, tensor by tensor."""

NATIVE_TYPES = tuple(_NATIVE)
"""File types that only llama.cpp's own quantizer writes."""

FILE_TYPES = DIRECT_TYPES + NATIVE_TYPES

_HEAD_TENSORS = ("token_embd.weight", "output.weight")
_MIXED_KEPT = (".attn_v.weight", ".ffn_down.weight")  # measured one by one: these lose most
_BLOCK = {"F32": 1, "F16": 1, "BF16": 1}


def require_file_type(file_type: str) -> str:
    """Return the file type in capitals.

    Raises:
        ConvertError: not one of ``FILE_TYPES``.
    """
    wanted = file_type.upper().replace("-", "_")
    if wanted not in FILE_TYPES:
        raise ConvertError(f"Unknown file type {file_type!r}", f"Choose one of {', '.join(FILE_TYPES)}.")
    return wanted


def file_type_number(file_type: str) -> int:
    """Return the number that ``general.file_type`` and ``llama_ftype`` use for a file type."""
    return _DIRECT[file_type][2] if file_type in _DIRECT else _NATIVE[file_type]


def tensor_type(file_type: str, name: str, shape: tuple[int, ...]) -> str:
    """Return the ggml type a tensor gets in a direct file type.

    Vectors (norms, biases, rope factors) stay F32. A row that does not divide into blocks of 32 falls back to F16.
    """
    if len(shape) < 2:
        return "F32"
    matrix, head, _ = _DIRECT[file_type]
    kept = file_type == MIXED and name.endswith(_MIXED_KEPT)
    wanted = head if kept or name in _HEAD_TENSORS else matrix
    return wanted if shape[-1] % _BLOCK.get(wanted, 32) == 0 else "F16"


def default_file_type() -> str:
    """Return the file type to build when nobody chose one: BF16 where the CPU computes in it, else Q8_0.

    Only Linux says plainly what a CPU can do without native code; elsewhere the answer is Q8_0, fast everywhere.
    """
    return "BF16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "Q8_0"


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the x86 feature flags the kernel reports, or an empty set where it reports none."""
    if platform.system() != "Linux":
        return frozenset()
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return frozenset(value.split())
    except OSError:
        pass  # a sandbox may hide /proc; the default then is the safe one
    return frozenset()
