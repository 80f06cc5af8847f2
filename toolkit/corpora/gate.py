"""The gate that every chain of reasoning passes, whoever wrote it; each refusal has a reason that is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from toolkit.contract.answer import count_words, find_evidence, quoted_spans
from toolkit.contract.example import Example
from toolkit.contract.prompt import load_prompt
from toolkit.corpora.knowledge import load_appraisals
from toolkit.corpora.spans import allowance
from toolkit.corpora.yaml_assets import read_yaml

MIN_WORDS, MAX_WORDS = 10, 40
DISAGREES = "the judge disagrees"
_LEAKS = re.compile(
    r"\b(labels?|labell?ed|prompt|instructions?|json|dataset|annotat\w*|raters?|gold|template|classif\w*|taxonomy"
    r"|language model|as an ai|i cannot|i can't)\b",
    re.IGNORECASE,
)
_SET_ASIDE = re.compile(r"\b(?:than|rather than|not|instead of)(?: to| of)?$")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an independent judge that has not seen the text thinks of it.

    Attributes:
        probabilities: per label, each from 0 to 1.
        base_rates: how often each label occurs at large, each above 0.
    """

    probabilities: Mapping[str, float]
    base_rates: Mapping[str, float]

    def supports(self, label: str, floor: float, top: int) -> bool:
        """Whether ``label`` is probable in itself, or among the ``top`` labels that the text makes likelier."""
        if self.probabilities[label] >= max(floor, self.base_rates[label]):
            return True
        own = self.probabilities[label] / self.base_rates[label]
        return sum(p / self.base_rates[other] > own for other, p in self.probabilities.items()) < top


def check(
    example: Example, reasoning: str, judgement: Judgement | None = None, floor: float = 0.1, top: int = 3
) -> str | None:
    """Why ``reasoning`` may not stand for ``example``, or None where it may.

    Args:
        judgement: without one, no judge is asked.
        floor: the argued label needs this probability and its base rate ...
        top: ... or a place among this many labels whose probability the text raises most.
    """
    if judgement is not None and not judgement.supports(example.labels[0], floor, top):
        return DISAGREES
    return (
        _form(reasoning)
        or _quotation(example.text, reasoning)
        or _conclusion(example, outside_quotes(reasoning))
        or _wording(outside_quotes(reasoning))
    )


class PhrasingCap:
    """Refuses wordings that have become too frequent; counts what it lets through.

    Args:
        same_form: how many chains may share a wording: the same telling words, in whatever order and between whatever
            small words, outside the quotes.
        opening_share: the largest share of ``expected`` chains that may begin with the same five words.
    """

    def __init__(self, same_form: int = 8, opening_share: float = 0.01, expected: int = 10_000) -> None:
        self.same_form = same_form
        self.same_opening = max(1, int(opening_share * expected))
        self._forms: Counter[frozenset[str]] = Counter()
        self._openings: Counter[str] = Counter()

    def check(self, reasoning: str) -> str | None:
        """Count the wording, or say that it may not be used again."""
        form, opening = telling_words(reasoning), five_words(reasoning)
        if self._forms[form] >= self.same_form:
            return "same wording too often"
        if self._openings[opening] >= self.same_opening:
            return "same opening too often"
        self._forms[form] += 1
        self._openings[opening] += 1
        return None


def telling_words(reasoning: str) -> frozenset[str]:
    """The words of four letters and more outside the quotes: what makes two wordings the same."""
    return frozenset(re.findall(r"[^\W\d_]{4,}", outside_quotes(reasoning).lower()))


def five_words(reasoning: str) -> str:
    """The opening by which wordings are compared: the first five words, in lower case."""
    return " ".join(reasoning.lower().split()[:5])


def outside_quotes(reasoning: str) -> str:
    """The reasoning with every quotation emptied."""
    spec = load_prompt()
    marks = spec.open_quote + spec.close_quote
    return re.sub(f"{spec.open_quote}[^{marks}]*{spec.close_quote}", f"{spec.open_quote}{spec.close_quote}", reasoning)


def _form(reasoning: str) -> str | None:
    if not re.fullmatch(r'[A-Z][^"\\\x00-\x1f\x7f]*\.', reasoning) or "{" in reasoning:
        return "not in the answer's form"
    if len(reasoning) > load_prompt().max_characters or count_words(reasoning) > MAX_WORDS:
        return "too long"
    return "too short" if count_words(reasoning) < MIN_WORDS else None


def _quotation(text: str, reasoning: str) -> str | None:
    spans, allowed = quoted_spans(reasoning), allowance(text)
    if not spans:
        return "nothing quoted" if allowed else None
    if any(span not in text for span in spans):
        return "quote not in the text"
    total = sum(count_words(span) for span in spans)
    if total > allowed or len(find_evidence(text, reasoning)) < len(spans):
        return "too much quoted"
    return None


def _conclusion(example: Example, prose: str) -> str | None:
    """The argued label must be named once or twice, and no other except to set it aside."""
    own, lowered = 0, prose.lower()
    for label, appraisal in load_appraisals(example.lens).items():
        names = "|".join(re.escape(name) for name in appraisal.names)
        for match in re.finditer(rf"\b(?:{names})\b", lowered):
            if label == example.labels[0]:
                own += 1
            elif not _SET_ASIDE.search(lowered[: match.start()].rstrip()):
                return "another label concluded"
    if not own:
        return "label not named"
    return "label named too often" if own > 2 else None


def _wording(prose: str) -> str | None:
    words = re.findall(r"\w+", prose.lower())
    if _LEAKS.search(prose) or not _runs(words).isdisjoint(_instruction()):
        return "leaks the instruction"
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    return "repeats itself" if triples and max(triples.values()) > 1 else None


@cache
def _instruction() -> frozenset[tuple[str, ...]]:
    """Every six words that follow each other in what a model is told to do."""
    return _runs(re.findall(r"\w+", read_yaml("prompts", "teacher", "request.yaml")["system"].lower()))


def _runs(words: Sequence[str], length: int = 6) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
