"""Whether a server reads texts as our own engine does, and why not where it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.proof import Question, ask, emotion_of, require_server
from toolkit.contract.answer import gbnf
from toolkit.contract.lens import Lens
from toolkit.contract.trie import LabelTrie
from toolkit.inference.engine import Engine

NEARLY_EQUAL = 0.05
"""Two labels whose probabilities lie closer than this may change places with the order of a sum of rounded floats."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A text that was read differently, with the probabilities that our engine gives to either label."""

    text: str
    ours: str
    theirs: str
    p_ours: float
    p_theirs: float
    reason: str


@dataclass(frozen=True, slots=True)
class Proof:
    """How many of ``n`` texts were read alike, the others, and how many answers came through which endpoint."""

    n: int
    differences: tuple[Difference, ...]
    endpoints: dict[str, int]

    @property
    def agreed(self) -> int:
        """The texts that were read alike."""
        return self.n - len(self.differences)


def prove(
    gguf: Path,
    url: str,
    lens: Lens,
    texts: Sequence[str],
    *,
    default_lens: Lens = Lens.AUTHOR,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Proof:
    """Read ``texts`` with our engine and through the server at ``url``, and compare the emotions.

    Raises:
        ServerError: the server cannot be reached or refuses.
    """
    require_server(url)
    engine = Engine(gguf, threads=threads)
    try:
        posteriors = [reading.posterior for reading in engine.read(texts, lens)]
        frame, trie = engine.frames[lens], engine.tries[lens]
    finally:
        engine.close()  # the server needs the processors
    grammar, system = gbnf(lens, with_reasoning=False), "" if lens == default_lens else str(lens)
    differences, endpoints = [], Counter[str]()
    for done, (text, posterior) in enumerate(zip(texts, posteriors, strict=True), 1):
        answer = ask(url, Question(text, frame.render(text), grammar, system))
        endpoints[answer.endpoint] += 1
        if (found := compare(text, posterior, trie, emotion_of(answer.content))) is not None:
            differences.append(found)
        if progress is not None:
            progress(done, len(texts), "asking the server")
    return Proof(len(texts), tuple(differences), dict(endpoints))


def compare(text: str, posterior: np.ndarray, trie: LabelTrie, theirs: str | None) -> Difference | None:
    """The difference between our most probable label and what a server said; None where there is none."""
    ours = int(posterior.argmax())
    if trie.labels[ours] == theirs:
        return None
    if theirs not in trie.labels:
        return Difference(text, trie.labels[ours], str(theirs), float(posterior[ours]), 0.0, "no answer of ours")
    other = trie.labels.index(theirs)
    p_ours, p_theirs = float(posterior[ours]), float(posterior[other])
    reason = "not explained"
    if trie.labels[greedy_label(posterior, trie.paths)] == theirs:
        reason = "greedy decoding takes the likelier first token, we compare whole labels"
    elif p_ours - p_theirs < NEARLY_EQUAL:
        reason = "nearly equal: rounding decides"
    return Difference(text, trie.labels[ours], theirs, p_ours, p_theirs, reason)


def greedy_label(posterior: np.ndarray, paths: Sequence[tuple[int, ...]]) -> int:
    """The label that greedy decoding ends in: token by token the one whose labels have most probability together."""
    left = list(range(len(paths)))
    depth = 0
    while len(left) > 1:
        mass: dict[int, float] = {}
        for label in left:
            mass[paths[label][depth]] = mass.get(paths[label][depth], 0.0) + float(posterior[label])
        best = max(mass, key=lambda token: mass[token])
        left = [label for label in left if paths[label][depth] == best]
        depth += 1
    return left[0]
