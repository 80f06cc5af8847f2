"""What a figure was measured on: processor, its flags, cores, and how llama.cpp was built."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convert.file_types import cpu_flags
from convert.header import Header
from toolkit.inference.tuning import available_threads, processor

_TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "f16c", "fma")
_ELEMENT = 2  # bytes of a number in the KV cache


def describe_machine() -> dict[str, Any]:
    """The machine as ``bench --json`` tells it; times are ISO 8601 in UTC."""
    from toolkit.inference import kernel

    why_not = kernel.install()
    import llama_cpp

    return {
        "cpu": processor(),
        "flags": [flag for flag in _TELLING if flag in cpu_flags()],
        "cores": os.cpu_count(),
        "usable": available_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "llama_cpp_python": version("llama-cpp-python"),
        "build": " ".join(llama_cpp.llama_print_system_info().decode().split()),
        "kernel": f"llama.cpp's own: {why_not}" if why_not else "ours for BF16 and attention",
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def cache_bytes(header: Header, cells: int) -> int:
    """What a KV cache of ``cells`` takes: keys and values of every layer, 16 bits each."""
    told = {key.removeprefix(f"{header.architecture}."): value for key, value in header.metadata.items()}
    heads = int(told["attention.head_count"])
    width = int(told.get("attention.key_length", int(told["embedding_length"]) // heads))
    shared = int(told.get("attention.head_count_kv", heads))
    return cells * int(told["block_count"]) * 2 * shared * width * _ELEMENT


def resident_bytes() -> int | None:
    """The memory that this process holds at this moment; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
