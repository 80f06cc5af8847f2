"""The label trie: the token paths of all labels, as constrained decoding and training walk them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.contract.prompt import Tokenizer, load_prompt


@dataclass(frozen=True, slots=True)
class Branch:
    """A point where more than one token may follow.

    Attributes:
        path: the label tokens that lead here; empty at the root.
        tokens: the allowed next tokens, ascending.
        members: for each of ``tokens`` the indices of the labels below it.
    """

    path: tuple[int, ...]
    tokens: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """Label paths and branching points; ``branches[0]`` is the root, parents stand before their children."""

    labels: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]
    branches: tuple[Branch, ...]


def build_trie(tokenizer: Tokenizer, labels: Sequence[str]) -> LabelTrie:
    """The trie of ``labels`` in the tokens of ``tokenizer``.

    A label that is a prefix of another ends with the first token of what follows every label, so that each label has
    a leaf of its own.
    """
    paths = [tuple(tokenizer.encode(label)) for label in labels]
    stop = tokenizer.encode(load_prompt().bridge)[0]
    if any(a != b and b[: len(a)] == a for a in paths for b in paths):
        paths = [(*path, stop) for path in paths]
    branches: list[Branch] = []
    frontier: list[tuple[int, ...]] = [()]
    while frontier:
        prefix = frontier.pop(0)
        below: dict[int, list[int]] = {}
        for index, path in enumerate(paths):
            if len(path) > len(prefix) and path[: len(prefix)] == prefix:
                below.setdefault(path[len(prefix)], []).append(index)
        if len(below) > 1 or not prefix:
            tokens = tuple(sorted(below))
            branches.append(Branch(prefix, tokens, tuple(tuple(below[token]) for token in tokens)))
        frontier += [(*prefix, token) for token, members in sorted(below.items()) if len(members) > 1]
    return LabelTrie(tuple(labels), tuple(paths), tuple(branches))
