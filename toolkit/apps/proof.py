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

NEARLY_EQUAL = 0.16
"""Two tokens may change places by rounding alone where their log-probabilities, in nats, lie closer than this.

Other programs sum rounded numbers in an order that follows from their batches. Between batches the winner's
probability p was measured to move by up to .04 in BF16. Where its logit moves by d against the others, p moves by about
p (1 - p) d, at most d / 4; so logits are known to move by .16.
"""
NO_ANSWER, NOT_EXPLAINED = "no answer of ours", "not explained"


@dataclass(frozen=True, slots=True)
class Difference:
    """A text that was read differently, with the probabilities that our engine gives to either label."""

    text: str
    ours: str
    theirs: str
    p_ours: float
    p_theirs: float
    reason: str

    @property
    def excused(self) -> bool:
        """Whether it follows from how the two programs work."""
        return self.reason not in (NO_ANSWER, NOT_EXPLAINED)


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
        return Difference(text, trie.labels[ours], str(theirs), float(posterior[ours]), 0.0, NO_ANSWER)
    other = trie.labels.index(theirs)
    p_ours, p_theirs = float(posterior[ours]), float(posterior[other])
    reason = NOT_EXPLAINED
    if decodes_to(posterior, trie.paths, other):
        reason = "greedy decoding takes the likelier first token, we compare whole labels"
    elif decodes_to(posterior, trie.paths, other, NEARLY_EQUAL):
        reason = "nearly equal: rounding decides"
    return Difference(text, trie.labels[ours], theirs, p_ours, p_theirs, reason)


def greedy_label(posterior: np.ndarray, paths: Sequence[tuple[int, ...]]) -> int:
    """The label that greedy decoding ends in."""
    return next(label for label in range(len(paths)) if decodes_to(posterior, paths, label))


def decodes_to(posterior: np.ndarray, paths: Sequence[tuple[int, ...]], label: int, slack: float = 0.0) -> bool:
    """Whether greedy decoding may end in a label: token by token, the labels that go on so have most probability.

    Args:
        slack: by how many nats the log-probability of each token may lie below the likeliest.
    """
    left = list(range(len(paths)))
    for depth, token in enumerate(paths[label]):
        mass: dict[int, float] = {}
        for one in left:
            mass[paths[one][depth]] = mass.get(paths[one][depth], 0.0) + float(posterior[one])
        if mass[token] * np.exp(slack) < max(mass.values()):
            return False
        left = [one for one in left if paths[one][depth] == token]
    return True
