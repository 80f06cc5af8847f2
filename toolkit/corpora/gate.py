"""The gate that every chain of reasoning passes, whoever wrote it; each refusal has a reason that is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from toolkit.contract.answer import count_words, find_evidence, quoted_spans
from toolkit.contract.example import Example
from toolkit.contract.prompt import load_prompt
from toolkit.corpora.knowledge import load_appraisals
from toolkit.corpora.spans import allowance, says_nothing, tears_word, words_of
from toolkit.corpora.yaml_assets import read_yaml

MIN_WORDS, MAX_WORDS = 10, 40
MAX_COPIED = 7
_LEAKS = re.compile(
    r"\b(labels?|labell?ed|prompt|instructions?|json|dataset|annotat\w*|raters?|gold|template|classif\w*|taxonomy"
    r"|language model|as an ai|i cannot|i can't)\b",
    re.IGNORECASE,
)
_ASIDE = (  # what sets the label after it aside, directly or over a few small words
    r"not|\w+n['’]t|cannot|no|none|nobody|nothing|never|neither|nor|hardly|scarcely|barely|instead|far from|free of"
    r"|anything but|absence|lack|lacks|lacking|though some|(?<!not )without"
    r"|(?<!other )(?<!less )(?<!for more )than"
)
_BETWEEN = (
    r"to|of|from|a|an|the|any|some|all|be|been|in|into|it|this|that|as|at|for|with|out|really|quite|exactly|much|mere"
    r"|would|should|could|can|will|read|call|called|mean|express|show|speak|feel|feeling|sense|sign|trace|hint|word"
)
_SET_ASIDE = re.compile(rf"\b(?:{_ASIDE})(?: (?:{_BETWEEN}))*$")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge thinks of a text or of an argument that it has not seen.

    Attributes:
        probabilities: per label, each from 0 to 1.
        base_rates: how often each label occurs at large, each above 0.
    """

    probabilities: Mapping[str, float]
    base_rates: Mapping[str, float]

    def supports(self, label: str, floor: float, top: int) -> bool:
        """Whether ``label`` is probable in itself, or among the ``top`` labels that the words make likelier."""
        if self.probabilities[label] >= max(floor, self.base_rates[label]):
            return True
        own = self.probabilities[label] / self.base_rates[label]
        return sum(p / self.base_rates[other] > own for other, p in self.probabilities.items()) < top


def base_rates(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, float]:
    """How often each label occurs in ``examples``; for one that does not, as though it stood there once."""
    counts = Counter(label for e in examples for label in e.labels)
    return {label: max(counts[label], 1) / len(examples) for label in labels}


def check(
    example: Example, reasoning: str, argued: Judgement | None = None, floor: float = 0.1, top: int = 5
) -> str | None:
    """Why ``reasoning`` may not stand for ``example``, or None where it may.

    Args:
        argued: what a judge that reads the argument alone thinks it argues for; without one, no judge is asked.
        floor: the argued label needs this probability and its base rate ...
        top: ... or a place among this many labels whose probability the argument raises most.
    """
    prose = outside_quotes(reasoning)
    reason = _form(reasoning) or _quotation(example.text, reasoning) or _conclusion(example, prose) or _wording(prose)
    if reason is None and argued is not None and not argued.supports(example.labels[0], floor, top):
        return "argues for another label"
    return reason


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
    if any(tears_word(text, span) for span in spans):
        return "quote tears a word"
    if any(says_nothing(span) for span in spans):
        return "quote says nothing"
    total = sum(count_words(span) for span in spans)
    if total > allowed or len(find_evidence(text, reasoning)) < len(spans):
        return "too much quoted"
    return "copied without quotes" if _copies(text, outside_quotes(reasoning)) else None


def _copies(text: str, prose: str) -> bool:
    """Whether more than :data:`MAX_COPIED` words in a row, or all of a shorter text, stand outside the quotes."""
    words = [w.form for w in words_of(text)]
    length = max(3, min(MAX_COPIED + 1, len(words)))
    copied = [_runs([w.form for w in words_of(piece)], length) for piece in prose.split(load_prompt().open_quote)]
    return not _runs(words, length).isdisjoint(chain.from_iterable(copied))


def _conclusion(example: Example, prose: str) -> str | None:
    """The argued label must be named once or twice and not only be set aside; another label must be."""
    aside, lowered = [], prose.lower()  # of the argued label's mentions, which set it aside
    for label, appraisal in load_appraisals(example.lens).items():
        names = "|".join(re.escape(name) for name in appraisal.names)
        for match in re.finditer(rf"\b(?:{names})\b", lowered):
            denied = bool(_SET_ASIDE.search(lowered[: match.start()].rstrip()))
            if label == example.labels[0]:
                aside.append(denied)
            elif not denied:
                return "another label concluded"
    if not aside:
        return "label not named"
    if all(aside):
        return "argued label set aside"
    return "label named too often" if len(aside) > 2 else None


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
