"""From clean examples to examples with reasoning: choose, let the teacher write, let the gate judge, count."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import NEUTRAL, load_taxonomy
from toolkit.corpora.argument import judge_argument
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.gate import Judgement, PhrasingCap, base_rates, check, five_words, outside_quotes
from toolkit.corpora.knowledge import load_appraisals
from toolkit.corpora.lexicon import FoldedLexicon, Lexicon, fit
from toolkit.corpora.teacher import TemplateTeacher
from toolkit.corpora.teachers import Ask, BudgetSpentError, NoAnswer, Teacher

Reader = Lexicon | FoldedLexicon
_DISAGREES = "the judge disagrees"


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts that chains are written for.

    Attributes:
        name: begins the names of the files.
        dev: texts of the dev split, or None where it is not there.
    """

    name: str
    train: Sequence[Example]
    dev: Sequence[Example] | None = None


class CotConfig(Config):
    """How chains are chosen and judged, and how a model is asked for them.

    Attributes:
        per_label: the most chains for one label; ``caps`` overrides it for labels named there.
        val_per_label: the same for the dev split; 0 leaves it out.
        attempts: how often the teacher may write anew for one text before the text is given up.
        judge_floor: the judge's probability that the argued label needs, unless it is among the ``judge_top`` labels
            whose probability the text raises most.
        same_form: how many chains may share a wording, give or take small words, once their quotes are taken out.
        opening_share: the largest share of chains that begin with the same five words.
        weak_share: the largest share of a label's ``per_label`` whose texts have no carrying words; of these the judge
            must think twice as well.
        scarce: a label with fewer texts than this keeps more of them: the judge need place it only half as high.
        ask: how a model is asked; the template teacher has no use for it.
        rival_ratio: a label counts as a close rival from this share of the argued label's probability.
    """

    seed: int = 0
    per_label: int = Field(450, ge=1)
    caps: dict[str, int] = Field({NEUTRAL: 900})
    val_per_label: int = Field(40, ge=0)
    attempts: int = Field(6, ge=1)
    folds: int = Field(3, ge=2)
    judge_floor: float = Field(0.1, ge=0, le=1)
    judge_top: int = Field(3, ge=0)
    same_form: int = Field(240, ge=1)
    opening_share: float = Field(0.02, gt=0, le=1)
    rival_ratio: float = Field(0.6, gt=0)
    weak_share: float = Field(0.2, ge=0, le=1)
    scarce: int = Field(700, ge=0)
    ask: AskConfig = AskConfig()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A chain that the gate refused, with its example, and why."""

    example: Example
    reasoning: str
    reason: str


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
    forms: int = 0
    stopped: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON shows it, counts in falling order."""
        return {
            "offered": self.offered,
            "written": self.written,
            "distinct_openings": self.openings,
            "distinct_forms": self.forms,
            "weakly_carried": sum(self.weak.values()),
            "per_label": dict(self.per_label.most_common()),
            "refused_chains": dict(self.refused.most_common()),
            "texts_given_up": dict(self.given_up.most_common()),
            "stopped": self.stopped,
            "usage": self.usage,
        }


def write_chains(
    corpus: Corpus,
    config: CotConfig,
    teacher_for: Callable[[Reader], Teacher] = TemplateTeacher,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, tuple[list[Example], CotReport]]:
    """Chains for ``train`` and, where the corpus has dev texts, for ``val``.

    Args:
        teacher_for: makes the teacher, given the interpretable model that finds the carrying words.
        progress: called with the number of chains of the split so far.

    Raises:
        DataError: for too few examples.
        TeacherError: where the teacher cannot be asked.
    """
    train = corpus.train
    labels = load_taxonomy(train[0].lens.native).labels if train else ()
    folded = FoldedLexicon(train, labels, config.folds)
    result = {"train": enrich(train, judge(train, folded, train), folded, config, teacher_for(folded), progress)}
    if config.val_per_label and corpus.dev:
        lexicon = fit(train, labels)
        small = config.model_copy(update={"per_label": config.val_per_label, "caps": {}})
        judged = judge(corpus.dev, lexicon, train)
        result["val"] = enrich(corpus.dev, judged, lexicon, small, teacher_for(lexicon), progress)
    return result


def judge(examples: Sequence[Example], reader: Reader, train: Sequence[Example]) -> list[Judgement]:
    """What ``reader``, fitted on ``train`` and blind to each text in ``examples``, thinks of them."""
    rates = base_rates(train, reader.labels)
    rows = reader.probabilities([e.text for e in examples])
    return [Judgement(dict(zip(reader.labels, row.tolist(), strict=True)), rates) for row in rows]


def enrich(
    examples: Sequence[Example],
    judged: Sequence[Judgement],
    reader: Reader,
    config: CotConfig,
    teacher: Teacher | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Example], CotReport]:
    """Chains over ``examples``, balanced over labels; each text enters once, its argued label first.

    Args:
        judged: for each example what the judge thinks of it.
        reader: tells which texts have carrying words; like the judge it should not have seen the text.
        teacher: writes; without one, the template teacher.
        progress: called with the number of chains so far.
    """
    report = CotReport(offered=len(examples))
    writing = _Writing(examples, judged, reader, config, teacher or TemplateTeacher(reader), report)
    try:
        for label, rows in writing.chosen.items():
            writing.write_label(label, rows, progress)
    except BudgetSpentError as spent:
        report.stopped = str(spent)
    report.usage = writing.teacher.usage()
    chains = writing.chains
    random.Random(config.seed).shuffle(chains)
    report.written = len(chains)
    report.openings = len({five_words(c.reasoning or "") for c in chains})
    report.forms = len({outside_quotes(c.reasoning or "") for c in chains})
    return chains, report


class _Writing:
    """The chains of one split while they come about."""

    def __init__(
        self,
        examples: Sequence[Example],
        judged: Sequence[Judgement],
        reader: Reader,
        config: CotConfig,
        teacher: Teacher,
        report: CotReport,
    ) -> None:
        self.examples, self.judged, self.config, self.teacher, self.report = examples, judged, config, teacher, report
        self.scout = TemplateTeacher(reader)  # knows where no words carry the label, whoever writes
        self.chosen = _balanced(examples, config)
        self.counts = Counter(label for e in examples for label in e.labels)
        expected = sum(min(len(rows), _cap(config, label)) for label, rows in self.chosen.items())
        self.cap = PhrasingCap(config.same_form, config.opening_share, expected)
        self.chains: list[Example] = []

    def write_label(self, label: str, rows: Sequence[int], progress: Callable[[int], None]) -> None:
        """Take as many texts as chains are still wanted, until there are enough or no text is left."""
        worthy = self._worthy(label, rows)
        while batch := list(islice(worthy, _cap(self.config, label) - self.report.per_label[label])):
            self._write(label, batch)
            progress(len(self.chains))

    def _worthy(self, label: str, rows: Sequence[int]) -> Iterator[tuple[Ask, Judgement]]:
        """The texts that may have a chain, without asking the teacher about the others."""
        top = self.config.judge_top * (2 if self.counts[label] < self.config.scarce else 1)
        for row in rows:
            example, judgement = _argue_for(self.examples[row], label), self.judged[row]
            if not judgement.supports(label, self.config.judge_floor, top):
                self.report.given_up[_DISAGREES] += 1
            elif not self.scout.is_weak(example) or self._worthwhile(label, judgement, top):
                yield Ask(example, 0, _rival(example, judgement.probabilities, self.config.rival_ratio)), judgement

    def _worthwhile(self, label: str, judgement: Judgement, top: int) -> bool:
        """Whether a text without carrying words may still have a chain; counts it, or why not."""
        if not judgement.supports(label, 2 * self.config.judge_floor, top // 3):
            self.report.given_up["nothing carries the label"] += 1
        elif self.report.weak[label] >= self.config.weak_share * _cap(self.config, label):
            self.report.given_up["enough weak texts"] += 1
        else:
            self.report.weak[label] += 1
            return True
        return False

    def _write(self, label: str, batch: list[tuple[Ask, Judgement]]) -> None:
        """Ask for a chain on each text, anew for those whose chain was refused; every refusal is counted."""
        asks = [ask for ask, _ in batch]
        for attempt in range(self.config.attempts):
            refused: list[Ask] = []
            for ask, answer in zip(asks, self.teacher.write_all(asks), strict=True):
                reason = answer.reason if isinstance(answer, NoAnswer) else self._refusal(ask.example, answer)
                if reason is None and isinstance(answer, str):
                    self.chains.append(replace(ask.example, reasoning=answer))
                    self.report.per_label[label] += 1
                    continue
                self.report.refused[str(reason)] += 1
                if isinstance(answer, str):
                    self.report.refusals.append(Refusal(ask.example, answer, str(reason)))
                if attempt + 1 < self.config.attempts:
                    refused.append(replace(ask, attempt=attempt + 1))
                else:
                    self.report.given_up[str(reason)] += 1
            asks = refused
            if not asks:
                break

    def _refusal(self, example: Example, reasoning: str) -> str | None:
        argued = judge_argument(reasoning, example.lens)
        return check(example, reasoning, argued) or self.cap.check(reasoning)


def _rival(example: Example, probabilities: Mapping[str, float], ratio: float) -> str | None:
    """The likeliest label that is not gold, where it is akin to the argued one and comes close to it."""
    argued = example.labels[0]
    akin = [label for label in load_appraisals(example.lens)[argued].against if label not in example.labels]
    if not akin:
        return None
    best = max(akin, key=lambda label: probabilities[label])
    return best if probabilities[best] >= max(0.1, ratio * probabilities[argued]) else None


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
