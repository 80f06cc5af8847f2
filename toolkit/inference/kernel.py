"""Our product of bfloat16 matrices (``matmul.cpp``) and our attention (``attention.cpp``) in the place of llama.cpp's.

They are compiled once, by the machine's own compiler, for processors that multiply bfloat16, and kept in the cache
folder. Where that cannot be, or ``EMOTION_LRM_KERNEL=llama.cpp`` says so, everything works as with them, slower.
llama.cpp looks for them once, so whoever imports ``llama_cpp`` calls :func:`install` first.
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
from convert.ggml import BF16, F16, F32, Tensor
from toolkit.errors import ModelError
from toolkit.inference.abi import PINNED
from toolkit.inference.store import models_folder

log = logging.getLogger(__name__)

FOLDER, FILES = Path(__file__).parent, ("matmul.cpp", "attention.cpp", "lanes.h", "exported.map")
SWITCH = "EMOTION_LRM_KERNEL"
# What is ours, with the name by which llama.cpp asks for it.
_PARTS = {"matmul": "llamafile_sgemm", "attention": "ggml_compute_forward_flash_attn_ext"}
_NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16"}
_COMPILE = ("-std=c++17", "-O3", "-w", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16")
_LINK = ("-shared", "-fPIC", "-Wl,--as-needed", "-Wl,--version-script")
_COMPILERS, _PATIENCE = ("c++", "g++", "clang++"), 60  # seconds
_SIZES, _MATRIX = [ctypes.c_int64] * 3, [ctypes.c_void_p, ctypes.c_int64]
_library: Any = None  # once it is in its place
_stranded: ModelError | None = None  # why what is in its place cannot be used
_lock = threading.Lock()


class _UnfitError(Exception):
    """Why llama.cpp's own are used."""


@functools.cache
def install() -> str:
    """Put ours in their places, before ``llama_cpp`` is imported; returns why they are not there, or nothing.

    Raises:
        ModelError: where ours are asked and could not hand on what they are not made for.
    """
    with _lock:
        if _stranded is not None:
            raise _stranded
        return "" if _library is not None else _install()


def _install() -> str:
    global _library, _stranded
    try:
        _check_fit()
        library = _load(_compiled(models_folder().parent / "kernels"))
    except (_UnfitError, OSError, AttributeError, PackageNotFoundError, subprocess.SubprocessError) as error:
        log.debug("llama.cpp computes by itself.", exc_info=error)
        return str(error)
    import llama_cpp  # noqa: F401 - which looks for them now

    try:
        for part, address in _originals().items():
            getattr(library, f"{part}_original")(address)
    except (OSError, AttributeError, ValueError) as error:
        _stranded = ModelError(
            f"Our kernels cannot hand on to llama.cpp's: {error}.", f"Set {SWITCH}=llama.cpp and start again."
        )
        raise _stranded from error
    _use(library, True)
    _library = library
    return ""


def taken(part: str) -> int:
    """How many products (``matmul``) or layers of attention (``attention``) ours has made in this process."""
    return int(getattr(_library, f"{part}_taken")()) if _library is not None else 0


@contextlib.contextmanager
def llama_cpp_alone() -> Iterator[None]:
    """Let llama.cpp compute by itself meanwhile, to compare; not while a pass runs in another thread."""
    if _library is not None:
        _use(_library, False)
    try:
        yield
    finally:
        if _library is not None:
            _use(_library, True)


def _use(library: Any, on: bool) -> None:
    for part in _PARTS:
        getattr(library, f"{part}_use")(on)


def _check_fit() -> None:
    """Look whether llama.cpp's own may be replaced in this process."""
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
    source = _digest(b"".join((FOLDER / name).read_bytes() for name in FILES) + " ".join(_COMPILE + _LINK).encode())
    for path in folder.glob(f"kernel-{source}-*.so"):
        _refuse_shared(folder, path)
        if path.stem.endswith(_digest(path.read_bytes())):
            return path
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise _UnfitError("there is no C++ compiler")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "kernel.so"
        sources = [str(FOLDER / name) for name in FILES if name.endswith(".cpp")]
        exported = str(FOLDER / "exported.map")
        command = [compiler, *_COMPILE, *sources, *_LINK, exported, "-o", str(made)]
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip()[:200]
            raise _UnfitError(f"{Path(compiler).name} cannot compile it: {why}")
        made.chmod(0o755)
        _refuse_shared(folder, made)
        return made.replace(folder / f"kernel-{source}-{_digest(made.read_bytes())}.so")


def _refuse_shared(*paths: Path) -> None:
    for path in paths:
        told = path.stat()
        if told.st_uid not in (os.geteuid(), 0) or told.st_mode & 0o022:
            raise _UnfitError(f"{path} may be written by others")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _load(path: Path) -> Any:
    """The library, found by its names in this process from now on, if it computes rightly."""
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    for part in _PARTS:
        getattr(library, f"{part}_original").argtypes = [ctypes.c_void_p]
        getattr(library, f"{part}_use").argtypes = [ctypes.c_bool]
        getattr(library, f"{part}_taken").restype = ctypes.c_int64
    _use(library, True)
    if not _multiplies(getattr(library, _PARTS["matmul"])):
        raise _UnfitError("it multiplies wrongly on this processor")
    if not _attends(getattr(library, _PARTS["attention"])):
        raise _UnfitError("its attention is wrong on this processor")
    _use(library, False)  # until it can hand on
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) and library


def _originals() -> dict[str, int]:
    """The addresses of llama.cpp's own, in the library that is at work, wherever that was found."""
    mapped = (line.split(maxsplit=5)[5:] for line in Path("/proc/self/maps").read_text().splitlines())
    for path in sorted({path for (path,) in filter(None, mapped) if Path(path).name.startswith("libggml-cpu")}):
        with contextlib.suppress(OSError):
            own = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            return {part: ctypes.cast(getattr(own, name), ctypes.c_void_p).value or 0 for part, name in _PARTS.items()}
    raise OSError("its library is not to be found")


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
            if not product(thread.ctypes.data, rows, count, depth, *places, BF16, BF16, F32):
                return False
        if not np.array_equal(out, right @ left.T):
            return False
    return True


def _tensor(values: np.ndarray) -> Tensor:
    """An array of four axes, which has to live as long."""
    ne, nb = (ctypes.c_int64 * 4)(*values.shape[::-1]), (ctypes.c_size_t * 4)(*values.strides[::-1])
    return Tensor(type={"float32": F32, "float16": F16}[values.dtype.name], ne=ne, nb=nb, data=values.ctypes.data)


def _attend(
    attention: Any, queries: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray, threads: int = 1
) -> np.ndarray:
    """What ``attention`` makes of queries (streams, heads, rows, depth) with a scale of 1/8.

    Args:
        keys: of shape (streams, heads that share, cells, depth), as ``values``.
        mask: of shape (streams, 1, rows, cells).

    Returns:
        Shape (streams, rows, heads, depth); NaN where nothing was written.
    """
    attention.argtypes = [ctypes.c_void_p, ctypes.POINTER(Tensor)]
    streams, heads, rows, _ = queries.shape
    out = np.full((streams, rows, heads, values.shape[3]), np.nan, np.float32)
    layer = _tensor(out)
    layer.op_params[0] = int(np.float32(1 / 8).view(np.int32))
    sources = [_tensor(part) for part in (queries, keys, values, mask)]
    layer.src[:4] = [ctypes.addressof(source) for source in sources]
    for number in range(threads):
        thread = np.array([number, threads], np.intc)
        attention(thread.ctypes.data, layer)
    return out


def _attends(attention: Any) -> bool:
    """Whether two threads attend as numpy does, with heads of every depth that there is code for, alone and shared."""
    return all(_attends_to(attention, *shape) for shape in ((24, 6, 2), (64, 7, 1), (128, 2, 2), (256, 4, 1)))


def _attends_to(attention: Any, depth: int, heads: int, keyed: int) -> bool:
    """The same of one depth and number of heads, of which so many have keys: two streams, 21 rows of several texts."""
    chance = np.random.default_rng(0)
    queries = chance.normal(size=(2, heads, 21, depth)).astype(np.float32)
    keys, values = chance.normal(size=(2, 2, keyed, 99, depth)).astype(np.float16)
    mask = np.full((2, 1, 21, 99), -np.inf, np.float16)
    for row in range(21):
        mask[:, :, row, :70] = 0  # what all share
        mask[:, :, row, 70 + row // 9 * 9 : 71 + row] = 0
    shared = [one.repeat(heads // keyed, 1).astype(np.float32) for one in (keys, values)]
    scores = np.einsum("shrd,shcd->shrc", queries, shared[0]) / 8 + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("shrc,shcd->srhd", weights, shared[1])
    return bool(np.abs(_attend(attention, queries, keys, values, mask, 2) - expected).max() < 1e-5)
