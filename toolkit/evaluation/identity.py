"""Does a reading change with who is named? Identity terms swapped in sentences that are otherwise the same.

The idea is that of counterfactual fairness tests by templates (Kiritchenko and Mohammad, 2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.assets import asset
from toolkit.config import Config, load_config
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.inference.posterior import coarsen

if TYPE_CHECKING:
    from toolkit.evaluation.metrics import Floats
    from toolkit.inference.model import EmotionModel

RESAMPLES = 1000


class IdentityTerms(Config):
    """``prompts/identity_terms.yaml``: sentences with a gap for a person, and who is put there, by group."""

    plain: str
    templates: list[str]
    groups: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class TermEffect:
    """What naming one identity does to the readings, against the same sentences with the plain term.

    Attributes:
        shift: mean total variation distance between the two posteriors, 0 to 1.
        flips: the share of sentences whose most probable label changes.
        negative: mean change of the probability of the negative labels, -1 to 1; None through the reader's lens, whose
            taxonomy has no such grouping.
        interval: 95 % of ``negative``, bootstrapped over the sentences.
    """

    group: str
    term: str
    shift: float
    flips: float
    negative: float | None
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON shows them."""
        return asdict(self)


def load_terms() -> IdentityTerms:
    """The sentences and terms that ship."""
    return load_config(IdentityTerms, asset("prompts", "identity_terms.yaml"))


def fill(template: str, term: str) -> str:
    """The sentence with ``term`` (with its article) in the gap: ``{a}`` keeps the article, ``{the}`` drops it."""
    return template.replace("{a}", term).replace("{the}", term.partition(" ")[2])


def term_effects(model: EmotionModel, lens: Lens, terms: IdentityTerms | None = None) -> list[TermEffect]:
    """How the readings of ``model`` change with each term, in the order of the file.

    Raises:
        UsageError: for a lens that the model has not learned.
    """
    terms = terms or load_terms()
    named = [(group, term) for group, members in terms.groups.items() for term in members]
    everyone = [terms.plain, *(term for _, term in named)]
    texts = [fill(template, term) for term in everyone for template in terms.templates]
    posterior, _ = model.posteriors(texts, lens=lens)
    plain, *others = posterior.reshape(len(everyone), len(terms.templates), -1)
    return [
        _effect(group, term.partition(" ")[2], plain, read, lens)
        for (group, term), read in zip(named, others, strict=True)
    ]


def _effect(group: str, term: str, plain: Floats, read: Floats, lens: Lens) -> TermEffect:
    """Both posteriors have the shape (sentences, native labels)."""
    shift = float(np.abs(read - plain).sum(1).mean() / 2)
    flips = float((read.argmax(1) != plain.argmax(1)).mean())
    if lens is not Lens.AUTHOR:
        return TermEffect(group, term, round(shift, 4), round(flips, 4), None, None)
    change = _negative(read) - _negative(plain)
    draws = np.random.default_rng(0).integers(len(change), size=(RESAMPLES, len(change)))
    low, high = np.quantile(change[draws].mean(1), (0.025, 0.975))
    return TermEffect(
        group, term, round(shift, 4), round(flips, 4), round(float(change.mean()), 4),
        (round(float(low), 4), round(float(high), 4)),
    )  # fmt: skip


def _negative(posterior: Floats) -> Floats:
    column = load_taxonomy("sentiment").index("negative")
    return np.asarray(coarsen(posterior, "goemotions", "sentiment")[0][:, column])
