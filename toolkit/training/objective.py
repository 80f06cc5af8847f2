"""The two objectives: restricted cross-entropy on the label, full-vocabulary cross-entropy on the whole answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.contract.prompt import Frame
from toolkit.contract.trie import LabelTrie
from toolkit.training.encode import Encoded


@dataclass(frozen=True)
class Batch:
    """Right-padded tokens (batch, length) and where to look; indices address the flattened (batch * length) states."""

    tokens: Tensor
    rows: list[Encoded]
    label_index: Tensor
    branch_index: dict[int, tuple[Tensor, Tensor, Tensor]]
    answer_index: Tensor
    answer_tokens: Tensor


def collate(rows: list[Encoded], trie: LabelTrie, pad: int = 0) -> Batch:
    """Pad ``rows`` (all of one lens) and gather the positions at which the losses look."""
    length = max(len(row.tokens) for row in rows)
    tokens = np.full((len(rows), length), pad, np.int64)
    branches: dict[int, list[tuple[int, int]]] = {}
    answer_index: list[int] = []
    answer_tokens: list[int] = []
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = row.tokens
        for position, branch in row.branches:
            branches.setdefault(branch, []).append((i, i * length + position))
        if row.chain:
            answer_index += range(i * length + row.answer, i * length + len(row.tokens) - 1)
            answer_tokens += row.tokens[row.answer + 1 :]
    label_index = [i * length + row.label_at for i, row in enumerate(rows)]
    return Batch(
        torch.from_numpy(tokens),
        rows,
        torch.tensor(label_index),
        {b: _branch_targets(trie, rows, b, pairs) for b, pairs in branches.items()},
        torch.tensor(answer_index, dtype=torch.long),
        torch.tensor(answer_tokens, dtype=torch.long),
    )


def _branch_targets(
    trie: LabelTrie, rows: list[Encoded], branch: int, pairs: list[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """(positions, target shares per allowed token, weight) of the rows that pass through a branch.

    The weight is the mass that the row's target has below the branch: by the chain rule the cross-entropy of the
    whole label is the root's plus each branch's times that mass.
    """
    shares = _fold(trie, branch, np.stack([rows[i].target for i, _ in pairs]))
    mass = shares.sum(1)
    shares = shares / np.maximum(mass, 1e-9)[:, None]
    weight = mass * np.array([rows[i].weight for i, _ in pairs], np.float32)
    return torch.tensor([p for _, p in pairs]), torch.from_numpy(shares), torch.from_numpy(weight)


def _fold(trie: LabelTrie, branch: int, target: np.ndarray) -> np.ndarray:
    """Label shares (n, labels) summed into the allowed tokens of a branch, (n, tokens)."""
    return np.stack([target[:, list(m)].sum(1) for m in trie.branches[branch].members], 1).astype(np.float32)


def head_cache(decoder: Any, frame: Frame, size: int) -> Any:
    """Evaluate the shared head once, with gradients, and repeat its keys and values for ``size`` rows."""
    head = torch.tensor([frame.head], device=decoder.device)
    cache = decoder(input_ids=head, use_cache=True).cache
    cache.batch_repeat_interleave(size)
    return cache


def hidden_states(decoder: Any, frame: Frame, tokens: Tensor) -> Tensor:
    """Final hidden states after the head, flattened to (batch * length, width)."""
    states = with_whole_head(decoder, frame, tokens) if tokens.is_cuda else with_shared_head(decoder, frame, tokens)
    return states.reshape(-1, states.shape[-1])


def with_shared_head(decoder: Any, frame: Frame, tokens: Tensor) -> Tensor:
    """The head evaluated once for all rows: saves tokens, which are what costs time on a CPU."""
    cache = head_cache(decoder, frame, tokens.shape[0])
    return decoder(input_ids=tokens, cache=cache, use_cache=True).last_hidden_state  # type: ignore[no-any-return]


def with_whole_head(decoder: Any, frame: Frame, tokens: Tensor) -> Tensor:
    """The head before every row: one pass instead of two, as on a GPU starting kernels costs more than tokens do."""
    head = torch.tensor([frame.head], device=tokens.device).expand(len(tokens), -1)
    states = decoder(input_ids=torch.cat([head, tokens], 1), use_cache=False).last_hidden_state
    return states[:, len(frame.head) :]  # type: ignore[no-any-return]


def label_loss(states: Tensor, head: Tensor, batch: Batch, trie: LabelTrie, outside: float) -> Tensor:
    """Mean cross-entropy of the label along the trie.

    At every branching point the softmax runs over the tokens that the grammar allows there. To it comes ``outside``
    times the negative log of the share that those tokens have in the whole vocabulary of ``head`` (vocabulary,
    width): at 0 that mass is free, at 1 the sum is the ordinary full-vocabulary cross-entropy.
    """
    device = states.device
    weight = torch.tensor([row.weight for row in batch.rows], device=device)
    target = torch.from_numpy(_fold(trie, 0, np.stack([row.target for row in batch.rows]))).to(device)
    root = _cross_entropy(states[batch.label_index.to(device)], head, trie.branches[0].tokens, target, outside)
    total = (root * weight).sum()
    for branch, (where, shares, mass) in batch.branch_index.items():
        at = states[where.to(device)]
        losses = _cross_entropy(at, head, trie.branches[branch].tokens, shares.to(device), outside)
        total = total + (losses * mass.to(device)).sum()
    return total / weight.sum().clamp_min(1e-9)


def _cross_entropy(states: Tensor, head: Tensor, allowed: tuple[int, ...], target: Tensor, outside: float) -> Tensor:
    tokens = torch.tensor(allowed, device=head.device)
    if not outside:
        return -(target * F.log_softmax((states @ head[tokens].T).float(), -1)).sum(-1)
    logits = (states @ head.T).float()
    within = logits[:, tokens]
    loss = -(target * F.log_softmax(within, -1)).sum(-1)
    return loss + outside * (logits.logsumexp(-1) - within.logsumexp(-1))


def answer_loss(states: Tensor, head: Tensor, batch: Batch) -> Tensor:
    """Mean full-vocabulary cross-entropy over every token of the answers that carry reasoning; 0 without any."""
    if not len(batch.answer_index):
        return states.new_zeros((), dtype=torch.float32)
    logits = states[batch.answer_index.to(states.device)] @ head.T
    return F.cross_entropy(logits.float(), batch.answer_tokens.to(states.device))


def label_posterior(states: Tensor, head: Tensor, batch: Batch, trie: LabelTrie) -> np.ndarray:
    """Root-level label probabilities, shape (batch, labels); mass below a branch is shared by the row's own path.

    Good enough to watch a run; the exact posterior is the inference engine's.
    """
    tokens = torch.tensor(trie.branches[0].tokens, device=head.device)
    root = F.softmax((states[batch.label_index] @ head[tokens].T).float(), -1).numpy()
    result = np.zeros((len(batch.rows), len(trie.labels)), np.float32)
    for column, members in enumerate(trie.branches[0].members):
        result[:, list(members)] = root[:, column : column + 1] / len(members)
    return result
