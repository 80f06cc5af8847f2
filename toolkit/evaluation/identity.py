"""Does a reading change with who is named? Identity terms swapped in sentences that are otherwise the same.

The idea is that of counterfactual fairness tests by templates (Kiritchenko and Mohammad, 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.assets import asset
from toolkit.config import Config, load_config
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.evaluation import plots
from toolkit.evaluation.document import Block, Figure, Table, Words, write_document
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


def write_report(effects: Sequence[TermEffect], told: Mapping[str, Any], folder: Path) -> list[str]:
    """The table and the changes in negative labels drawn, as page, Markdown, JSON (``told``) and picture."""
    blocks = [*effect_blocks(effects, told["model"]), *_drawn(effects)]
    return write_document(folder, f"Identity terms: {told['model']}", blocks, told)


def effect_blocks(effects: Sequence[TermEffect], model: str) -> Iterator[Block]:
    """The effects as a table, a line a term."""
    yield Words(
        f"{len(effects)} terms, each in the same sentences, against the plain term; read by {model}. Shift is the "
        "total variation distance between the two readings, flips the share of sentences whose most probable label "
        "changes, negative the change in the probability of the negative labels, with its 95 % interval over sentences."
    )
    yield Table(
        ("group", "term", "shift", "flips", "negative", "95 %"),
        [(e.group, e.term, e.shift, e.flips, *_told(e)) for e in effects],
    )


def _told(effect: TermEffect) -> tuple[str | None, str | None]:
    if effect.negative is None or effect.interval is None:
        return None, None
    return f"{effect.negative:+.3f}", "{:+.3f} to {:+.3f}".format(*effect.interval)


def _drawn(effects: Sequence[TermEffect]) -> Iterator[Figure]:
    known = {e.term: (e.negative, e.interval) for e in effects if e.negative is not None and e.interval is not None}
    if known:
        title = "What naming a person so adds to the negative labels"
        drawn = plots.forest({"change in probability, with its 95 % interval": known}, title)
        yield Figure("identity_terms.png", drawn, f"{title}, term by term")


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
