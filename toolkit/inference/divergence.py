"""How far the two lenses part on a text: arithmetic on two readings, and many texts through both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np

from toolkit.contract.analysis import Analysis, Comparison, Divergence
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import UsageError
from toolkit.inference.request import refuse_lone_text, until_refused

SHARED, LEFT_OUT = "shared10", "neutral"
MOST_OUTSIDE = 0.6
CHUNK = 256


class TwoLensModel(Protocol):
    """A model that reads through both lenses; ``noise_line`` as for :class:`~toolkit.contract.analysis.Divergence`."""

    @property
    def noise_line(self) -> float | None: ...

    def analyze_many(
        self, texts: Iterable[str], *, lens: Lens, taxonomy: str | None, mode: str
    ) -> Iterator[Analysis]: ...


def check_shared(taxonomy: str | None) -> None:
    """Refuse a taxonomy in which not both lenses can answer; None stands for each lens's own.

    Raises:
        UsageError: naming what there is.
    """
    if taxonomy not in (None, SHARED):
        raise UsageError(
            f"Both lenses together cannot answer in the taxonomy {taxonomy!r}.",
            f"Use {SHARED}, or leave --taxonomy out for each lens's own.",
        )


def compare_many(
    model: TwoLensModel, texts: Iterable[str], *, taxonomy: str | None = None, mode: str = "explain"
) -> Iterator[Comparison]:
    """Every text through both lenses, in order; lazy, a few hundred texts at a time.

    Raises:
        UsageError: for a taxonomy that is not shared, or a lens that the model lacks; for a text that cannot be read,
            behind the comparisons of those before it.
    """
    check_shared(taxonomy)
    refused: list[UsageError] = []
    waiting = until_refused(refuse_lone_text(texts), refused)
    while chunk := list(islice(waiting, CHUNK)):
        author, reader = (list(model.analyze_many(chunk, lens=lens, taxonomy=taxonomy, mode=mode)) for lens in Lens)
        for pair in zip(author, reader, strict=True):
            yield compare(*pair, model.noise_line)
    if refused:
        raise refused[0]


def compare(author: Analysis, reader: Analysis, noise_line: float | None) -> Comparison:
    """Two readings of one text, each in its lens's own taxonomy or in the shared one, and how far they part."""
    labels = [label for label in load_taxonomy(SHARED).labels if label != LEFT_OUT]
    (ours, outside_author), (theirs, outside_reader) = shared_shares(author), shared_shares(reader)
    comparable = max(outside_author, outside_reader) <= MOST_OUTSIDE
    score = jensen_shannon(ours, theirs) if comparable else None
    named = labels[int(ours.argmax())], labels[int(theirs.argmax())]
    outside = {Lens.AUTHOR: outside_author, Lens.READER: outside_reader}
    told = Divergence(score, outside, *named, noise_line, summarize(score, *named, noise_line))
    return Comparison(author, reader, told)


def shared_shares(analysis: Analysis) -> tuple[np.ndarray, float]:
    """The shares of the shared labels other than neutral, shape (9,), summing to 1, and the probability outside."""
    scores = np.array(list(analysis.scores.values()))
    if analysis.taxonomy == SHARED:
        scores = scores * (1 - analysis.outside)
    shares, outside = shares_of(scores[None], analysis.taxonomy)
    return shares[0], float(outside[0])


def shares_of(scores: np.ndarray, taxonomy: str) -> tuple[np.ndarray, np.ndarray]:
    """The same for scores of shape (n, labels): shares (n, 9) and what lies outside (n,)."""
    shared = load_taxonomy(SHARED)
    mass = np.zeros((len(scores), len(shared.labels)))
    for column, goal in enumerate(load_taxonomy(taxonomy).mapping(SHARED)):
        if goal is not None:
            mass[:, goal] += scores[:, column]
    mass = np.delete(mass, shared.index(LEFT_OUT), axis=1)
    return mass / np.maximum(mass.sum(1, keepdims=True), 1e-12), np.clip(1 - mass.sum(1), 0, 1)


def noise_line(one: np.ndarray, other: np.ndarray) -> float:
    """What two models of one lens differ by on all but one in twenty of the texts that can be compared.

    Args:
        one: native posteriors of the author's lens, shape (n, 28), from the model that knows both lenses.
        other: those of the author-only model on the same texts.

    Returns:
        The 95th percentile of their divergence, 0 to 1.

    Raises:
        UsageError: where no text can be compared.
    """
    (ours, outside), (theirs, others_outside) = (shares_of(p, Lens.AUTHOR.native) for p in (one, other))
    kept = np.flatnonzero(np.maximum(outside, others_outside) <= MOST_OUTSIDE)
    if not len(kept):
        raise UsageError("On no text do both models see enough of the shared labels.", "Measure on more texts.")
    return float(np.quantile([jensen_shannon(ours[row], theirs[row]) for row in kept], 0.95))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """The Jensen-Shannon divergence of two distributions in bits, 0 to 1 (Lin, 1991)."""
    middle = (p + q) / 2

    def relative_entropy(x: np.ndarray) -> float:
        some = x > 0
        return float((x[some] * np.log2(x[some] / middle[some])).sum())

    return min(1.0, max(0.0, (relative_entropy(p) + relative_entropy(q)) / 2))


def summarize(score: float | None, author: str, reader: str, noise_line: float | None) -> str:
    """One sentence about the two lenses, which claims no more than was measured."""
    if score is None:
        return "Too little of what a lens sees has a place among the shared labels, so the two cannot be compared."
    both = f"both lean to {author}" if author == reader else f"author lens: {author}, reader lens: {reader}"
    if noise_line is None:
        return f"The lenses differ by {score:.2f} of 1 ({both}); how much of that is noise was not measured."
    if score <= noise_line:
        line = "; two models of one lens parted as far on at least one comment in 20."
    else:
        line = ", farther than two models of one lens did on 19 of 20 comments."
    return f"The lenses part by {score:.2f} of 1 ({both}){line}"
