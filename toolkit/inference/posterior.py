"""From logits along the label trie to probabilities, and from one taxonomy to a coarser one. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import LabelTrie


def trie_posterior(trie: LabelTrie, logits: Mapping[int, np.ndarray]) -> tuple[np.ndarray, float]:
    """The exact posterior over labels under constrained decoding, and its coverage.

    Args:
        trie: the labels' token paths.
        logits: for each branch index the full-vocabulary logits at that branch, shape (n_vocab,).

    Returns:
        Probabilities, shape (labels,), summing to 1: at every branch a softmax over the allowed tokens, multiplied
        along the path. And the coverage: the same product with softmaxes over the whole vocabulary, summed over
        labels, so the probability that unconstrained decoding would have named some label (tokens behind the last
        branch are taken as certain).
    """
    restricted = np.ones(len(trie.labels))
    unrestricted = np.ones(len(trie.labels))
    for index, branch in enumerate(trie.branches):
        at = np.asarray(logits[index])
        allowed = at[list(branch.tokens)].astype(np.float64)
        peak = at.max()
        within = np.exp(allowed - allowed.max())
        within /= within.sum()
        among_all = np.exp(allowed - peak) / np.exp(at - peak).sum(dtype=np.float64)
        for column, members in enumerate(branch.members):
            restricted[list(members)] *= within[column]
            unrestricted[list(members)] *= among_all[column]
    return restricted / restricted.sum(), float(unrestricted.sum())


def apply_temperature(posterior: np.ndarray, temperature: float) -> np.ndarray:
    """``p^(1/T)`` renormalised over the last axis (Guo et al., 2017); never changes the order of labels."""
    if temperature == 1.0:
        return posterior
    scaled = np.log(np.maximum(posterior, 1e-30)) / temperature
    scaled = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(-1, keepdims=True))


def coarsen(posterior: np.ndarray, native: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """A native posterior in another taxonomy.

    Args:
        posterior: shape (n, native labels), rows summing to 1.
        native: the taxonomy of ``posterior``.
        target: the taxonomy wanted; the same one returns ``posterior`` itself.

    Returns:
        Probabilities of shape (n, target labels), rows summing to 1, and the mass of native labels without a place in
        ``target``, shape (n,). ``ekman`` and ``sentiment`` sum over native labels; ``shared10`` sums and then
        conditions on the mass inside.
    """
    mapping = load_taxonomy(native).mapping(target)
    result = np.zeros((len(posterior), len(load_taxonomy(target).labels)))
    outside = np.zeros(len(posterior))
    for column, goal in enumerate(mapping):
        if goal is None:
            outside += posterior[:, column]
        else:
            result[:, goal] += posterior[:, column]
    return result / np.maximum(result.sum(1), 1e-12)[:, None], outside


def best_native(posterior: np.ndarray, native: str, target: str, winner: int) -> int:
    """The most probable native label that maps to label ``winner`` of ``target``."""
    mapping = load_taxonomy(native).mapping(target)
    members = [i for i, goal in enumerate(mapping) if goal == winner]
    return max(members, key=lambda i: float(posterior[i]))


def pool_windows(posteriors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The posterior of a text read in windows: their mean, weighted by tokens. (windows, labels) -> (labels,)."""
    pooled = (posteriors * lengths[:, None]).sum(0)
    return np.asarray(pooled / pooled.sum())
