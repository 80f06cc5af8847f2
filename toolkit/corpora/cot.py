"""From clean examples to examples with reasoning: choose, let the teacher write, let the gate judge, count."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.gate import DISAGREES, Judgement, PhrasingCap, check, five_words
from toolkit.corpora.goemotions import find_split, read_goemotions, resolve_source
from toolkit.corpora.jsonl import write_examples
from toolkit.corpora.lexicon import FoldedLexicon, Lexicon, fit
from toolkit.corpora.teacher import TemplateTeacher

Reader = Lexicon | FoldedLexicon


class CotConfig(Config):
    """How chains are chosen and judged.

    Attributes:
        per_label: the most chains for one label; ``caps`` overrides it for labels named there.
        val_per_label: the same for the dev split; 0 leaves it out.
        attempts: how often the teacher may write anew for one text before the text is given up.
        judge_floor: the judge's probability that the argued label needs, unless it is among the ``judge_top`` labels
            whose probability the text raises most.
        same_form: how many chains may share a wording once their quotes are taken out.
        opening_share: the largest share of chains that begin with the same five words.
        weak_share: the largest share of a label's ``per_label`` whose texts have no carrying words; of these the judge
            must think twice as well.
        scarce: a label with fewer texts than this keeps more of them: the judge need place it only half as high.
        rival_ratio: a label counts as a close rival from this share of the argued label's probability.
    """

    seed: int = 0
    per_label: int = Field(800, ge=1)
    caps: dict[str, int] = Field({"neutral": 1200})
    val_per_label: int = Field(40, ge=0)
    attempts: int = Field(6, ge=1)
    folds: int = Field(3, ge=2)
    judge_floor: float = Field(0.1, ge=0, le=1)
    judge_top: int = Field(3, ge=0)
    same_form: int = Field(8, ge=1)
    opening_share: float = Field(0.01, gt=0, le=1)
    rival_ratio: float = Field(0.6, gt=0)
    weak_share: float = Field(0.2, ge=0, le=1)
    scarce: int = Field(700, ge=0)


@dataclass
class CotReport:
    """What became of the texts: chains per label, every refusal of the gate, and the texts given up with the reason."""

    offered: int = 0
    written: int = 0
    per_label: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)
    weak: Counter[str] = field(default_factory=Counter)
    openings: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON shows it, counts in falling order."""
        return {
            "offered": self.offered,
            "written": self.written,
            "distinct_openings": self.openings,
            "weakly_carried": sum(self.weak.values()),
            "per_label": dict(self.per_label.most_common()),
            "refused_chains": dict(self.refused.most_common()),
            "texts_given_up": dict(self.given_up.most_common()),
        }


def write_chains(
    train: Sequence[Example], source: Path | None, out: Path, config: CotConfig
) -> dict[str, dict[str, Any]]:
    """Write ``goemotions_cot_train.jsonl`` and, where dev is there, ``goemotions_cot_val.jsonl`` into ``out``.

    Returns:
        the report of each split as JSON.

    Raises:
        DataError: for too few examples, or a damaged dev split.
    """
    labels = load_taxonomy(train[0].lens.native).labels if train else ()
    folded = FoldedLexicon(train, labels, config.folds)
    chains, report = enrich(train, judge(train, folded, train), folded, config)
    write_examples(out / "goemotions_cot_train.jsonl", chains)
    reports = {"train": report.to_dict()}
    folder = resolve_source(source)
    if config.val_per_label and (folder is None or find_split(folder, "dev")):
        dev = list(read_goemotions("dev", source))
        lexicon = fit(train, labels)
        small = config.model_copy(update={"per_label": config.val_per_label, "caps": {}})
        chains, report = enrich(dev, judge(dev, lexicon, train), lexicon, small)
        write_examples(out / "goemotions_cot_val.jsonl", chains)
        reports["val"] = report.to_dict()
    return reports


def judge(examples: Sequence[Example], reader: Reader, train: Sequence[Example]) -> list[Judgement]:
    """What ``reader``, fitted on ``train`` and blind to each text in ``examples``, thinks of them."""
    counts = Counter(label for e in train for label in e.labels)
    rates = {label: max(counts[label], 1) / len(train) for label in reader.labels}
    rows = reader.probabilities([e.text for e in examples])
    return [Judgement(dict(zip(reader.labels, row.tolist(), strict=True)), rates) for row in rows]


def enrich(
    examples: Sequence[Example],
    judged: Sequence[Judgement],
    reader: Reader,
    config: CotConfig,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Example], CotReport]:
    """Chains over ``examples``, balanced over labels; each text enters once, its argued label first.

    Args:
        judged: for each example what the judge thinks of it.
        reader: finds the carrying words; like the judge it should not have seen the text.
        progress: called with the number of chains so far.
    """
    chosen = _balanced(examples, config)
    counts = Counter(label for e in examples for label in e.labels)
    report = CotReport(offered=len(examples))
    teacher = TemplateTeacher(reader, config.seed)
    expected = sum(min(len(rows), _cap(config, label)) for label, rows in chosen.items())
    cap = PhrasingCap(config.same_form, config.opening_share, expected)
    chains: list[Example] = []
    for label, rows in chosen.items():
        for row in rows:
            if report.per_label[label] >= _cap(config, label):
                break
            example = _argue_for(examples[row], label)
            top = config.judge_top * (2 if counts[label] < config.scarce else 1)
            if teacher.is_weak(example) and not _worthwhile(example, judged[row], top, config, report):
                continue
            reasoning = _ask(teacher, example, judged[row], cap, top, config, report)
            if reasoning is not None:
                chains.append(replace(example, reasoning=reasoning))
                report.per_label[label] += 1
                progress(len(chains))
    random.Random(config.seed).shuffle(chains)
    report.written = len(chains)
    report.openings = len({five_words(c.reasoning or "") for c in chains})
    return chains, report


def _worthwhile(example: Example, judgement: Judgement, top: int, config: CotConfig, report: CotReport) -> bool:
    """Whether a text without carrying words may still have a chain; counts it, or why not."""
    label = example.labels[0]
    if not judgement.supports(label, 2 * config.judge_floor, top // 3):
        report.given_up["nothing carries the label"] += 1
    elif report.weak[label] >= config.weak_share * _cap(config, label):
        report.given_up["enough weak texts"] += 1
    else:
        report.weak[label] += 1
        return True
    return False


def _ask(
    teacher: TemplateTeacher,
    example: Example,
    judgement: Judgement,
    cap: PhrasingCap,
    top: int,
    config: CotConfig,
    report: CotReport,
) -> str | None:
    """The first of the teacher's attempts that passes the gate; every refusal is counted."""
    reason: str | None = None
    rival = _rival(example, judgement.probabilities, config.rival_ratio)
    for attempt in range(config.attempts):
        reasoning = teacher.write(example, attempt, rival)
        if reasoning is None:
            reason = "no fitting form"
        else:
            reason = check(example, reasoning, judgement, config.judge_floor, top)
            reason = reason or cap.check(reasoning)
        if reason is None:
            return reasoning
        report.refused[reason] += 1
        if reason == DISAGREES:  # no wording changes that
            break
    report.given_up[str(reason)] += 1
    return None


def _rival(example: Example, probabilities: Mapping[str, float], ratio: float) -> str | None:
    """The likeliest label that is not gold, where it is akin to the argued one and comes close to it."""
    argued = example.labels[0]
    akin = [label for label in _akin(example.lens, argued) if label not in example.labels]
    if not akin:
        return None
    best = max(akin, key=lambda label: probabilities[label])
    return best if probabilities[best] >= max(0.1, ratio * probabilities[argued]) else None


def _akin(lens: Lens, label: str) -> list[str]:
    """The labels that share a coarser emotion with ``label``."""
    taxonomy = load_taxonomy(lens.native)
    groups = taxonomy.mapping("ekman" if lens is Lens.AUTHOR else "shared10")
    own = groups[taxonomy.index(label)]
    return [other for other, group in zip(taxonomy.labels, groups, strict=True) if group == own and other != label]


def _balanced(examples: Sequence[Example], config: CotConfig) -> dict[str, list[int]]:
    """For each label the rows that may argue for it, single-label texts first; each row under its rarest label."""
    counts = Counter(label for e in examples for label in e.labels)
    order = list(range(len(examples)))
    random.Random(config.seed).shuffle(order)
    order.sort(key=lambda row: len(examples[row].labels))
    chosen: dict[str, list[int]] = defaultdict(list)
    for row in order:
        chosen[min(examples[row].labels, key=lambda label: counts[label])].append(row)
    return dict(sorted(chosen.items()))


def _argue_for(example: Example, label: str) -> Example:
    rest = tuple(other for other in example.labels if other != label)
    return replace(example, labels=(label, *rest))


def _cap(config: CotConfig, label: str) -> int:
    return config.caps.get(label, config.per_label)
