"""What the matrices of a model are multiplied with while it reads some texts, watched in llama.cpp."""

import ctypes
import itertools
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.block import FIRST, write_block
from convert.errors import ConvertError
from convert.files import explained
from convert.ggml import F32, Tensor, require_layout
from convert.header import Header, check_header
from convert.logits import Evaluator
from convert.rounding import BLOCK, Moments, MomentsOf
from convert.tensors import Floats, block_of, read_rows
from convert.tokens import gguf_tokens

_RUN = 1536  # columns whose products are kept together: memory grows with it, and so does what rounding can mend
_ROWS = 256  # inputs of a matrix that wait for their products to be taken
_LEFT = b"l_out-0"  # llama.cpp's name for the states that the first block leaves


def input_moments(
    path: Path | str,
    texts: Sequence[str],
    folder: Path,
    threads: int = 1,
    n_ctx: int = 256,
    matrices: Container[str] | None = None,
) -> Iterator[dict[str, Moments]]:
    """Let a model read some texts, and yield block after block the moments of the inputs of its matrices.

    A block is read when its turn comes, by itself and from a file of its own. So one block is in memory, and the states
    of the texts: 4 bytes * tokens of all texts * embedding length.

    Args:
        path: a GGUF of floats.
        texts: read one by one, control tokens included; the more and the likelier, the better. Cut to ``n_ctx`` tokens.
        folder: takes the file of a block, which is gone again when the block is yielded.
        matrices: names of those that are wanted; None for all.
        threads: CPU threads.

    Raises:
        ConvertError: no text, or another llama.cpp than the pinned one. While it yields: the disk is full, llama.cpp
            refuses a block or does not show what is asked of it.
    """
    require_layout()
    header = check_header(path)
    tokens = [ids[:n_ctx] for ids in gguf_tokens(path, texts) if ids]
    if not tokens:
        raise ConvertError("There is no text to weigh the rounding by")
    return _each_block(header, tokens, folder, threads, n_ctx, matrices)


def in_turn(blocks: Iterator[dict[str, Moments]]) -> MomentsOf:
    """Return what finds the moments of matrices that are asked for in the order of their blocks.

    No more than one block's are kept; the next block is read when the first of its matrices is asked for.
    """
    at, kept = -1, dict[str, Moments]()

    def moments_of(name: str) -> Moments | None:
        nonlocal at, kept
        while at < block_of(name):
            kept = {}  # gone before the next are made
            at, kept = at + 1, next(blocks, {})
        return kept.get(name)

    return moments_of


def _each_block(
    header: Header,
    tokens: Sequence[Sequence[int]],
    folder: Path,
    threads: int,
    n_ctx: int,
    matrices: Container[str] | None,
) -> Iterator[dict[str, Moments]]:
    states = _embeddings(header, tokens)
    for block in range(header.metadata[f"{header.architecture}.block_count"]):
        named = {
            tensor.name.replace(f"blk.{block}.", FIRST): tensor
            for tensor in header.tensors
            if block_of(tensor.name) == block
            and len(tensor.shape) == 2
            and (matrices is None or tensor.name in matrices)
        }
        watch = Watch({name: tensor.shape[1] for name, tensor in named.items()})
        with explained(folder), tempfile.TemporaryDirectory(".partial", f".{header.path.name}.", folder) as place:
            alone = write_block(header, block, Path(place) / "block.gguf")
            with Evaluator(alone, n_ctx, threads, watch=watch) as model:
                for i, embeddings in enumerate(states):
                    watch.begin()
                    model.read(embeddings)
                    states[i] = watch.left()
        yield {named[name].name: moments for name, moments in watch.moments().items()}


def _embeddings(header: Header, tokens: Sequence[Sequence[int]]) -> list[Floats]:
    """Return what the first block gets for each text, shape (tokens, embedding length)."""
    table = header.tensor("token_embd.weight")
    assert table is not None  # the header was checked
    rows = {token: read_rows(header, table, slice(token, token + 1)) for token in set(itertools.chain(*tokens))}
    # llama.cpp scales Gemma's embeddings where it looks them up, and leaves alone those that it is given
    scale = np.sqrt(np.float32(table.shape[1])) if header.architecture == "gemma3" else np.float32(1)
    return [scale * np.concatenate([rows[token] for token in ids]) for ids in tokens]


class Watch:
    """Called by llama.cpp before and after every operation; collects the inputs of some matrices.

    Args:
        wanted: number of columns, by the name of each matrix.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self._wanted = wanted
        self._sources: dict[int, str] = {}  # input -> the first matrix it met: q, k and v share theirs
        self._shared: dict[str, str] = {}
        self._waiting: dict[str, list[Floats]] = {}
        self._sums: dict[str, list[Floats]] = {}
        self._counts: dict[str, int] = {}
        self._left: Floats | None = None

    def begin(self) -> None:
        """Forget the last pass: the tensors of the next may stand where its own did."""
        self._sources.clear()
        self._left = None

    def __call__(self, pointer: int, asked: bool, _: object) -> bool:
        """Say of an operation that is to come whether it is of interest; of one that is done, take what is."""
        operation = Tensor.from_address(pointer)
        if operation.name == _LEFT:
            if not asked:
                self._left = _values(operation)
            return True
        if not operation.src[0] or not operation.src[1]:
            return not asked
        name: str = Tensor.from_address(operation.src[0]).name.decode("utf-8", "replace")
        if name not in self._wanted:
            return not asked
        first = self._sources.setdefault(operation.src[1], name)
        self._shared[name] = first
        if asked:
            return first == name
        self._take(name, Tensor.from_address(operation.src[1]))
        return True

    def left(self) -> Floats:
        """The states behind the first block after the last pass, shape (tokens, embedding length).

        Raises:
            ConvertError: where llama.cpp did not show them.
        """
        if self._left is None:
            raise ConvertError("llama.cpp does not show what a block leaves", "Choose another file type.")
        return self._left

    def moments(self) -> dict[str, Moments]:
        """The mean products of all inputs seen, by the name of each matrix; called once, at the end.

        Raises:
            ConvertError: where llama.cpp did not show the inputs of a matrix.
        """
        unseen = [name for name in self._wanted if self._shared.get(name) not in self._counts]
        if unseen:
            raise ConvertError(f"llama.cpp does not show the inputs of {unseen[0]}", "Choose another file type.")
        for first, count in self._counts.items():
            self._add_up(first)
            for total in self._sums[first]:
                total /= np.float32(count)
        return {name: self._sums[first] for name, first in self._shared.items()}

    def _take(self, name: str, source: Tensor) -> None:
        inputs = _values(source)
        if inputs is None or inputs.shape[1] != self._wanted[name]:
            return  # nothing may be raised through native code; `moments` says what is missing
        self._waiting.setdefault(name, []).append(inputs)
        self._counts[name] = self._counts.get(name, 0) + len(inputs)
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


def _values(tensor: Tensor) -> Floats | None:
    """Copy a tensor of neighbouring 32-bit floats, shape (rows, row length); None for any other."""
    columns = tensor.ne[0]
    if (tensor.type, tensor.nb[1]) != (F32, 4 * columns):
        return None
    rows = int(np.prod(tensor.ne[1:]))
    values = (ctypes.c_float * (rows * columns)).from_address(tensor.data)
    return np.ctypeslib.as_array(values).reshape(rows, columns).copy()


def _runs(columns: int) -> list[slice]:
    """Cut columns into runs of whole blocks, about equally long and at most ``_RUN``."""
    blocks = -(-columns // BLOCK)
    n_runs = -(-columns // _RUN)
    cuts = [BLOCK * (blocks * i // n_runs) for i in range(n_runs)] + [columns]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
