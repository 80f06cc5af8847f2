"""Our product of bfloat16 matrices (``matmul.cpp``) in the place of llama.cpp's, where the processor multiplies them.

It is compiled once, by the machine's own compiler, and kept in the cache folder. Where that cannot be, or
``EMOTION_LRM_KERNEL=llama.cpp`` says so, everything works as with it, slower. llama.cpp looks for it once, so whoever
imports ``llama_cpp`` calls :func:`install` first.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from convert.file_types import cpu_flags
from toolkit.inference.abi import PINNED
from toolkit.inference.store import models_folder

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("matmul.cpp")
SWITCH = "EMOTION_LRM_KERNEL"
_NAME = "llamafile_sgemm"  # by which llama.cpp asks for products
_NEEDED = {"avx512f", "avx512_bf16"}
_COMPILE = ("-std=c++17", "-O3", "-w", "-mavx512f", "-mavx512bf16", "-shared", "-fPIC", "-Wl,--as-needed")
_COMPILERS, _PATIENCE = ("c++", "g++", "clang++"), 60  # seconds
_BF16, _F32 = 30, 0  # as in ggml.h
_SIZES, _MATRIX = [ctypes.c_int64] * 3, [ctypes.c_void_p, ctypes.c_int64]
_library: Any = None  # once it is in its place
_lock = threading.Lock()


class _UnfitError(Exception):
    """Why llama.cpp's own product is used."""


@functools.cache
def install() -> str:
    """Put our product in its place, before ``llama_cpp`` is imported; returns why it is not there, or nothing."""
    with _lock:
        return "" if _library is not None else _install()


def _install() -> str:
    global _library
    try:
        _check_fit()
        library = _load(_compiled(models_folder().parent / "kernels"))
        import llama_cpp  # noqa: F401 - which looks for the product now

        library.matmul_original(_original())
        library.matmul_use(True)
    except (_UnfitError, OSError, AttributeError, PackageNotFoundError, subprocess.SubprocessError) as error:
        log.debug("llama.cpp multiplies by itself.", exc_info=error)
        return str(error)
    _library = library
    return ""


def products() -> int:
    """How many products ours has made in this process."""
    return int(_library.matmul_taken()) if _library is not None else 0


@contextlib.contextmanager
def llama_cpp_alone() -> Iterator[None]:
    """Let llama.cpp multiply by itself meanwhile, to compare; not while a pass runs in another thread."""
    if _library is not None:
        _library.matmul_use(False)
    try:
        yield
    finally:
        if _library is not None:
            _library.matmul_use(True)


def _check_fit() -> None:
    """Look whether llama.cpp's product may be replaced in this process."""
    if os.environ.get(SWITCH) == "llama.cpp":
        raise _UnfitError(f"{SWITCH} says so")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise _UnfitError("ours was made for Linux on x86-64")
    if not cpu_flags() >= _NEEDED:
        raise _UnfitError("this processor does not multiply bfloat16")
    if "LLAMA_CPP_LIB_PATH" in os.environ:
        raise _UnfitError("LLAMA_CPP_LIB_PATH names another llama.cpp")
    if "llama_cpp" in sys.modules:
        raise _UnfitError("llama_cpp was imported before")
    package = find_spec("llama_cpp")
    if package is None or package.origin is None or version("llama-cpp-python") != PINNED:
        raise _UnfitError(f"ours was made for llama-cpp-python {PINNED}")
    if not any((Path(package.origin).parent / "lib").glob("libggml-cpu.so*")):  # else it is chosen after the import
        raise _UnfitError("llama.cpp's library has another name")


def _compiled(folder: Path) -> Path:
    """The library in ``folder``, whose name tells source and content; it is compiled where it is not there whole."""
    source = _digest(SOURCE.read_bytes() + " ".join(_COMPILE).encode())
    for path in folder.glob(f"matmul-{source}-*.so"):
        _refuse_shared(folder, path)
        if path.stem.endswith(_digest(path.read_bytes())):
            return path
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise _UnfitError("there is no C++ compiler")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "matmul.so"
        command = [compiler, *_COMPILE, "-x", "c++", str(SOURCE), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip()[:200]
            raise _UnfitError(f"{Path(compiler).name} cannot compile it: {why}")
        made.chmod(0o755)
        _refuse_shared(folder, made)
        return made.replace(folder / f"matmul-{source}-{_digest(made.read_bytes())}.so")


def _refuse_shared(*paths: Path) -> None:
    for path in paths:
        told = path.stat()
        if told.st_uid not in (os.geteuid(), 0) or told.st_mode & 0o022:
            raise _UnfitError(f"{path} may be written by others")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _load(path: Path) -> Any:
    """The library, found by its names in this process from now on, if it multiplies rightly."""
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    library.matmul_original.argtypes, library.matmul_use.argtypes = [ctypes.c_void_p], [ctypes.c_bool]
    library.matmul_taken.restype = ctypes.c_int64
    library.matmul_use(True)
    if not _multiplies(getattr(library, _NAME)):
        raise _UnfitError("it multiplies wrongly on this processor")
    library.matmul_use(False)  # until it can hand on
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) and library


def _original() -> int:
    """The address of llama.cpp's own product, in the library that is at work, wherever that was found."""
    mapped = (line.split(maxsplit=5)[5:] for line in Path("/proc/self/maps").read_text().splitlines())
    for path in sorted({path for (path,) in filter(None, mapped) if Path(path).name.startswith("libggml-cpu")}):
        with contextlib.suppress(OSError):
            own = getattr(ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY), _NAME)
            return ctypes.cast(own, ctypes.c_void_p).value or 0
    raise _UnfitError("llama.cpp's library is not to be found")


def _multiplies(product: Any) -> bool:
    """Whether two threads multiply 48 rows of 96 values and few and many tokens as numpy does."""
    product.argtypes = [ctypes.c_void_p, *_SIZES, *_MATRIX * 3, *[ctypes.c_int] * 3]
    product.restype = ctypes.c_bool
    rows, depth, chance = 48, 96, np.random.default_rng(0)
    for count in (5, 19, 40, 149):
        left, right = (chance.integers(-8, 9, (n, depth)).astype(np.float32) for n in (rows, count))
        weights, tokens = ((one.view(np.uint32) >> 16).astype(np.uint16) for one in (left, right))  # exactly
        out = np.zeros((count, rows), np.float32)
        matrices = ((weights, depth), (tokens, depth), (out, rows))
        places = [part for matrix, stride in matrices for part in (matrix.ctypes.data, stride)]
        for number in range(2):
            thread = np.array([number, 2], np.intc)
            if not product(thread.ctypes.data, rows, count, depth, *places, _BF16, _BF16, _F32):
                return False
        if not np.array_equal(out, right @ left.T):
            return False
    return True
