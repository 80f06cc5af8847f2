"""Rounding to Q4_0 that looks at what a matrix is multiplied with, so that its products change least.

Columns are rounded one after the other, and the error of each is taken up by the columns still to come (GPTQ,
https://arxiv.org/abs/2210.17323); every block's scale is searched for the smallest weighted error, as llama.cpp's
importance matrices have it. Without knowledge of the inputs what is left is the search.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convert.file_types import MIXED
from convert.gguf_file import Encode, TensorPlan, nearest
from convert.tensors import Floats

BLOCK = 32
"""Weights of a row that share one scale."""

Moments: TypeAlias = Sequence[Floats]
"""Mean products of a matrix's inputs: for each run of neighbouring columns, in order, an array (columns, columns)."""

MomentsOf: TypeAlias = Callable[[str], Moments | None]
"""Finds the moments of a matrix by its name; None where its inputs are not known."""

_DAMPING = 0.01  # of the mean diagonal: keeps the inverse sound where few texts moved an input
_TRIED = 9  # scales tried on either side of the one that reaches the largest weight
_STEP = 0.1  # of a quantum, between them
_PIECE = 1 << 14  # blocks rounded at a time, so that they stay in the processor's cache


def unknown(_: str) -> None:
    """Say of every matrix that its inputs are not known."""


def rounding_of(file_type: str, moments_of: MomentsOf = unknown) -> Encode:
    """Return how a direct file type rounds: the mixed one by what is known of the inputs, all others to the nearest."""

    def rounded(plan: TensorPlan, rows: Floats) -> npt.NDArray[np.uint8]:
        return round_q4_0(rows, moments_of(plan.name)) if plan.type == "Q4_0" else nearest(plan, rows)

    return rounded if file_type == MIXED else nearest


def round_q4_0(weights: Floats, moments: Moments | None = None) -> npt.NDArray[np.uint8]:
    """Return rows of weights as the bytes of Q4_0.

    Args:
        weights: shape (rows, columns), columns a multiple of 32.
        moments: of the inputs; None treats all inputs alike.
    """
    columns = weights.shape[1]
    if moments is None:
        blocks = weights.reshape(-1, BLOCK)
        return np.concatenate([_round_alone(blocks[i : i + _PIECE]) for i in range(0, len(blocks), _PIECE)]).reshape(-1)
    parts = []
    start = 0
    for product in moments:
        parts.append(_round_run(weights[:, start : start + len(product)].copy(), product))
        start += len(product)
    if start != columns:
        raise ValueError(f"moments of {start} inputs for {columns} columns")
    return np.concatenate(parts, axis=1).reshape(-1)


def _round_alone(blocks: Floats) -> npt.NDArray[np.uint8]:
    """Round blocks, shape (n, 32), whose inputs are not known."""
    scale = best_scale(blocks, np.ones(BLOCK, np.float32))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    return _pack(np.clip(np.rint(blocks * inverse[:, None]), -8, 7).astype(np.int8), scale)


def _round_run(rest: Floats, product: Floats) -> npt.NDArray[np.uint8]:
    """Round neighbouring columns, shape (rows, n); ``rest`` is changed. Returns bytes (rows, blocks, 18)."""
    carry, importance = _carry(product)
    blocks = []
    for start in range(0, rest.shape[1], BLOCK):
        end = start + BLOCK
        scale = best_scale(rest[:, start:end], importance[start:end])
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
        errors = np.empty((len(rest), BLOCK), np.float32)
        levels = np.empty((len(rest), BLOCK), np.int8)
        for i, column in enumerate(range(start, end)):
            level = np.clip(np.rint(rest[:, column] * inverse), -8, 7)
            levels[:, i] = level
            errors[:, i] = (rest[:, column] - level * scale) / carry[column, column]
            rest[:, column + 1 : end] -= errors[:, i : i + 1] * carry[column, column + 1 : end]
        rest[:, end:] -= errors @ carry[start:end, end:]
        blocks.append(_pack(levels, scale))
    return np.stack(blocks, axis=1)


def _carry(product: Floats) -> tuple[Floats, Floats]:
    """Return how errors are passed on, as an upper triangle, and how much each input weighs."""
    damped = product.astype(np.float64)
    damped[np.diag_indices_from(damped)] += _DAMPING * damped.diagonal().mean() or 1.0
    carry = np.linalg.cholesky(np.linalg.inv(damped)).T
    return carry.astype(np.float32), damped.diagonal().astype(np.float32)


def best_scale(blocks: Floats, importance: Floats) -> Floats:
    """Return, of some scales for each block, the one whose rounding has the smallest weighted squared error.

    Args:
        blocks: shape (n, 32).
        importance: weight of each column, shape (32,).

    Returns:
        Shape (n,), rounded to 16 bits as it is stored; 0 for a block of zeros.
    """
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0]
    per_quantum = np.divide(1.0, largest, out=np.zeros_like(largest), where=largest != 0)
    weighted = blocks * importance
    best, scale = np.zeros_like(largest), np.zeros_like(largest)
    for tried in range(-_TRIED, _TRIED + 1):
        levels = np.clip(np.rint(blocks * (-(8 + _STEP * tried) * per_quantum)[:, None]), -8, 7)
        along, norm = (weighted * levels).sum(1), (levels * levels) @ importance
        fitted = np.divide(along, norm, out=np.zeros_like(along), where=norm > 0)
        better = along * fitted > best  # what the fitted scale takes off the squared error
        best, scale = np.where(better, along * fitted, best), np.where(better, fitted, scale)
    return scale.astype(np.float16).astype(np.float32)


def _pack(levels: npt.NDArray[np.int8], scale: Floats) -> npt.NDArray[np.uint8]:
    """Return Q4_0 blocks: a 16-bit scale, then two levels a byte, the first half of the block in the low bits."""
    packed = np.empty((len(levels), 2 + BLOCK // 2), np.uint8)
    packed[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    raised = (levels + 8).astype(np.uint8)
    packed[:, 2:] = raised[:, : BLOCK // 2] | raised[:, BLOCK // 2 :] << 4
    return packed
