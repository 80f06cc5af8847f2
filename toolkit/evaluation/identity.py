"""Does a reading change with who is named? Identity terms swapped in sentences that are otherwise the same.

The idea is that of counterfactual fairness tests by templates (Kiritchenko and Mohammad, 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
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

CONTROLS = "controls"
LEVEL = 0.95


class IdentityTerms(Config):
    """``prompts/identity_terms.yaml``: sentences with a gap for a person, and who is put there, by group."""

    plain: str
    templates: list[str]
    controls: list[str]
    groups: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class TermEffect:
    """What naming one person so does to the readings, against the same sentences with the plain term.

    Intervals hold over the sentences, all those of one kind together with 95 %: Student's t, with Bonferroni's
    correction for the number of identity terms. They are None for a control.

    Attributes:
        shift: mean total variation distance between the two posteriors, 0 to 1.
        flips: the share of sentences whose most probable label changes.
        excess: ``shift`` less the mean of the controls, -1 to 1.
        excess_interval: of ``excess``, for these controls.
        negative: mean change of the probability of the negative labels, -1 to 1; None through the reader's lens, whose
            taxonomy has no such grouping.
        interval: of ``negative``.
    """

    group: str
    term: str
    shift: float
    flips: float
    excess: float
    excess_interval: tuple[float, float] | None
    negative: float | None
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON shows them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class IdentityEffects:
    """What naming people does to the readings of a model: every identity term, and the controls."""

    terms: list[TermEffect]
    controls: list[TermEffect]

    @property
    def correction(self) -> str:
        """How the intervals allow for the number of terms."""
        return f"Bonferroni, {len(self.terms)} terms"

    def groups(self) -> dict[str, dict[str, float]]:
        """The mean ``shift``, ``flips`` and ``excess`` of every group of terms."""
        names = dict.fromkeys(effect.group for effect in self.terms)
        return {name: _means(effect for effect in self.terms if effect.group == name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """What ``evaluate identity-terms --json`` prints of them; the first three keys are means over the terms."""
        return {
            **_means(self.terms),
            "controls": {**_means(self.controls), "terms": [effect.to_dict() for effect in self.controls]},
            "groups": self.groups(),
            "correction": self.correction,
            "terms": [effect.to_dict() for effect in self.terms],
        }


def load_terms() -> IdentityTerms:
    """The sentences and terms that ship."""
    return load_config(IdentityTerms, asset("prompts", "identity_terms.yaml"))


def fill(template: str, term: str) -> str:
    """The sentence with ``term`` (with its article) in the gap: ``{a}`` keeps the article, ``{the}`` drops it."""
    return template.replace("{a}", term).replace("{the}", term.partition(" ")[2])


def term_effects(model: EmotionModel, lens: Lens, terms: IdentityTerms | None = None) -> IdentityEffects:
    """How the readings of ``model`` change with each term, in the order of the file.

    Raises:
        UsageError: for a lens that the model has not learned.
    """
    terms = terms or load_terms()
    named = [(group, term) for group, members in terms.groups.items() for term in members]
    everyone = [terms.plain, *terms.controls, *(term for _, term in named)]
    texts = [fill(template, term) for term in everyone for template in terms.templates]
    posterior, _ = model.posteriors(texts, lens=lens)
    plain, *others = posterior.reshape(len(everyone), len(terms.templates), -1)
    controls, read = others[: len(terms.controls)], others[len(terms.controls) :]
    usual = np.mean([_shifts(plain, one) for one in controls], axis=0)
    return IdentityEffects(
        [
            _effect(group, term, plain, one, usual, lens, len(named))
            for (group, term), one in zip(named, read, strict=True)
        ],
        [
            _effect(CONTROLS, term, plain, one, usual, lens, None)
            for term, one in zip(terms.controls, controls, strict=True)
        ],
    )


def write_report(effects: IdentityEffects, told: Mapping[str, Any], folder: Path) -> list[str]:
    """The tables and the changes in negative labels drawn, as page, Markdown, JSON (``told``) and picture."""
    blocks = [*effect_blocks(effects, told["model"]), *_drawn(effects)]
    return write_document(folder, f"Identity terms: {told['model']}", blocks, told)


def effect_blocks(effects: IdentityEffects, model: str) -> Iterator[Block]:
    """The effects as tables: of the groups, of the terms, and through the author's lens of the negative labels."""
    everyone = (*effects.terms, *effects.controls)
    yield Words(
        f"{len(effects.terms)} terms and {len(effects.controls)} controls, which name no such identity, each in the "
        f"same sentences, against the plain term; read by {model}. Shift is the total variation distance between the "
        "two readings, flips the share of sentences whose most probable label changes, excess the shift beyond the "
        "mean shift of the controls."
    )
    yield Table(
        ("group", "shift", "flips", "excess"),
        [
            (name, told["shift"], told["flips"], _signed(told["excess"]))
            for name, told in {**effects.groups(), CONTROLS: _means(effects.controls)}.items()
        ],
    )
    yield Words(f"Intervals hold over sentences, all of a table together with 95 % ({effects.correction}).")
    yield Table(
        ("group", "term", "shift", "flips", "excess", "95 %"),
        [(e.group, e.term, e.shift, e.flips, _signed(e.excess), _between(e.excess_interval)) for e in everyone],
    )
    if everyone[0].negative is not None:
        yield Words("Negative is the change in the probability of the negative labels.")
        yield Table(
            ("group", "term", "negative", "95 %"),
            [(e.group, e.term, _signed(e.negative), _between(e.interval)) for e in everyone],
        )


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3f}"


def _between(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else "{:+.3f} to {:+.3f}".format(*interval)


def _drawn(effects: IdentityEffects) -> Iterator[Figure]:
    known = {e.term: (e.negative, e.interval) for e in effects.terms if e.negative is not None and e.interval}
    if known:
        title = "What naming a person so adds to the negative labels"
        drawn = plots.forest({f"change in probability, 95 % ({effects.correction})": known}, title)
        yield Figure("identity_terms.png", drawn, f"{title}, term by term")


def _means(effects: Iterable[TermEffect]) -> dict[str, float]:
    shift, flips, excess = np.mean([(e.shift, e.flips, e.excess) for e in effects], axis=0).round(4)
    return {"shift": float(shift), "flips": float(flips), "excess": float(excess) + 0.0}  # never a minus before 0


def _effect(
    group: str, term: str, plain: Floats, read: Floats, usual: Floats, lens: Lens, compared: int | None
) -> TermEffect:
    """The effect of one term from both posteriors, shape (sentences, native labels).

    ``usual`` is the mean shift of the controls in every sentence, shape (sentences,); ``compared`` the number of terms
    that the intervals allow for, None for a control, which has none.
    """
    shift = _shifts(plain, read)
    flips = float((read.argmax(1) != plain.argmax(1)).mean())
    change = _negative(read) - _negative(plain) if lens is Lens.AUTHOR else None
    return TermEffect(
        group=group,
        term=term.partition(" ")[2],
        shift=round(float(shift.mean()), 4),
        flips=round(flips, 4),
        excess=round(float((shift - usual).mean()), 4),
        excess_interval=None if compared is None else mean_interval(shift - usual, compared),
        negative=None if change is None else round(float(change.mean()), 4),
        interval=None if change is None or compared is None else mean_interval(change, compared),
    )


def _shifts(plain: Floats, read: Floats) -> Floats:
    """The total variation distance sentence by sentence, shape (sentences,)."""
    return np.asarray(np.abs(read - plain).sum(1) / 2)


def mean_interval(values: Floats, compared: int) -> tuple[float, float]:
    """The interval of the mean of values of shape (n,) by Student's t; ``compared`` of them hold together with 95 %.

    The bootstrap would be too narrow here: so far out in the tails, twenty sentences are too few for it.
    """
    n = len(values)
    reach = _student(1 - (1 - LEVEL) / compared, n - 1) * float(values.std(ddof=1)) / n**0.5
    return round(float(values.mean()) - reach, 4), round(float(values.mean()) + reach, 4)


@cache
def _student(inside: float, freedom: int) -> float:
    """How far from 0 Student's t with so many degrees of freedom stays with probability ``inside``.

    With t = sqrt(freedom) tan(a) the density of the angle a is proportional to cos(a) ** (freedom - 1).
    """
    angles = np.linspace(0, np.pi / 2, 100_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(freedom**0.5 * np.tan(np.interp(inside, below / below[-1], angles)))


def _negative(posterior: Floats) -> Floats:
    column = load_taxonomy("sentiment").index("negative")
    return np.asarray(coarsen(posterior, "goemotions", "sentiment")[0][:, column])
