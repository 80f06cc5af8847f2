"""What the matrices of a model are multiplied with while it reads some texts, watched in llama.cpp."""

import ctypes
import itertools
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from convert.errors import ConvertError
from convert.header import Header, check_header
from convert.logits import Evaluator
from convert.rounding import BLOCK, Moments
from convert.tensors import Floats
from convert.tokens import gguf_tokens

_RUN = 1536  # columns whose products are kept together: memory grows with it, and so does what rounding can mend
_ROWS = 256  # inputs of a matrix that wait for their products to be taken


class _Tensor(ctypes.Structure):
    """``ggml_tensor`` of the pinned llama.cpp; ``_require_layout`` holds it against the library."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


_F32 = 0
_OBJECT_SIZE = 32  # what ggml keeps beside each tensor


def input_moments(
    path: Path | str, texts: Sequence[str], threads: int = 1, n_ctx: int = 256, matrices: Container[str] | None = None
) -> dict[str, Moments]:
    """Let a model read some texts and return, for each matrix of its blocks, the moments of its inputs.

    Args:
        path: a GGUF of floats.
        texts: read one by one, control tokens included; the more and the likelier, the better. Cut to ``n_ctx`` tokens.
        matrices: names of those that are wanted; None for all.
        threads: CPU threads.

    Raises:
        ConvertError: no text, or another llama.cpp than the pinned one.
    """
    _require_layout()
    header = check_header(path)
    tokens = [ids[:n_ctx] for ids in gguf_tokens(path, texts) if ids]
    if not tokens:
        raise ConvertError("There is no text to weigh the rounding by")
    watch = _Watch(header, matrices)
    with Evaluator(path, n_ctx, threads, watch=watch) as model:
        for ids in tokens:
            watch.sources.clear()  # tensors of the last pass may stand where others did
            model.logits(ids)
    return watch.moments()


class _Watch:
    """Called by llama.cpp before and after every operation; collects the inputs of the wanted matrices."""

    def __init__(self, header: Header, matrices: Container[str] | None) -> None:
        self.wanted = {
            tensor.name: tensor.shape[1]
            for tensor in header.tensors
            if tensor.name.startswith("blk.")
            and len(tensor.shape) == 2
            and (matrices is None or tensor.name in matrices)
        }
        self.sources: dict[int, str] = {}  # input -> the first matrix it met: q, k and v share theirs
        self._shared: dict[str, str] = {}
        self._waiting: dict[str, list[Floats]] = {}
        self._sums: dict[str, list[Floats]] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, pointer: int, asked: bool, _: object) -> bool:
        """Say of an operation that is to come whether it is of interest; of one that is done, take its input."""
        operation = _Tensor.from_address(pointer)
        if not operation.src[0] or not operation.src[1]:
            return not asked
        name: str = _Tensor.from_address(operation.src[0]).name.decode("utf-8", "replace")
        if name not in self.wanted:
            return not asked
        first = self.sources.setdefault(operation.src[1], name)
        self._shared[name] = first
        if asked:
            return first == name
        self._take(name, _Tensor.from_address(operation.src[1]))
        return True

    def moments(self) -> dict[str, Moments]:
        """The mean products seen so far, by the name of each matrix.

        Raises:
            ConvertError: where llama.cpp did not show the inputs of a matrix.
        """
        unseen = [name for name in self.wanted if self._shared.get(name) not in self._counts]
        if unseen:
            raise ConvertError(f"llama.cpp does not show the inputs of {unseen[0]}", "Choose another file type.")
        for first in self._counts:
            self._add_up(first)
        means = {first: [total / np.float32(n) for total in self._sums[first]] for first, n in self._counts.items()}
        return {name: means[first] for name, first in self._shared.items()}

    def _take(self, name: str, source: _Tensor) -> None:
        columns = self.wanted[name]
        rows = int(np.prod(source.ne[1:]))
        if (source.type, source.ne[0], source.nb[1]) != (_F32, columns, 4 * columns):
            return  # nothing may be raised through native code; `moments` says what is missing
        seen = (ctypes.c_float * (rows * columns)).from_address(source.data)
        self._waiting.setdefault(name, []).append(np.ctypeslib.as_array(seen).reshape(rows, columns).copy())
        self._counts[name] = self._counts.get(name, 0) + rows
        if sum(len(inputs) for inputs in self._waiting[name]) >= _ROWS:
            self._add_up(name)

    def _add_up(self, name: str) -> None:
        """Take the products of the inputs that wait: one large product costs a fraction of one for each text."""
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        inputs = np.concatenate(waiting)
        runs = _runs(inputs.shape[1])
        sums = self._sums.setdefault(name, [np.zeros((run.stop - run.start,) * 2, np.float32) for run in runs])
        for run, total in zip(runs, sums, strict=True):
            total += inputs[:, run].T @ inputs[:, run]


def _runs(columns: int) -> list[slice]:
    """Cut columns into runs of whole blocks, about equally long and at most ``_RUN``."""
    blocks = -(-columns // BLOCK)
    n_runs = -(-columns // _RUN)
    cuts = [BLOCK * (blocks * i // n_runs) for i in range(n_runs)] + [columns]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def _require_layout() -> None:
    """Make sure that a tensor of the installed llama.cpp is as large as the one that is read here."""
    from llama_cpp._ggml import libggml

    libggml.ggml_tensor_overhead.restype = ctypes.c_size_t
    if libggml.ggml_tensor_overhead() != _OBJECT_SIZE + ctypes.sizeof(_Tensor):
        raise ConvertError(
            "The installed llama-cpp-python is another release than the pinned one",
            'Reinstall the pinned one: pip install "llama-cpp-python==0.3.36"',
        )
