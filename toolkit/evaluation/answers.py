"""What the model wrote: does it keep the contract, and do its quotes stand in the text?"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.contract.answer import json_schema, quoted_spans
from toolkit.contract.lens import Lens

OPENING_WORDS = 5


@dataclass(frozen=True, slots=True)
class AnswerRates:
    """Shares over the answers of one run.

    Attributes:
        valid: share of answers that keep the JSON schema, 0 to 1.
        quoted: share of quoted spans that are exact substrings of their text; None where nothing was quoted.
        with_quote: share of answers that quote at all.
        openings: number of distinct first five words.
        copied: share of valid answers whose reasoning already stood word for word in an earlier one.
        repeating: share of valid answers in which three words in a row come twice.
        distinct_2: of all pairs of neighbouring words, the share that are different ones (Li et al., 2016); it falls
            with the number of answers, so compare it between runs over the same rows only.
        words: mean number of words of a valid answer's reasoning.
    """

    valid: float
    quoted: float | None
    with_quote: float
    openings: int
    copied: float
    repeating: float
    distinct_2: float
    words: float


def rate_answers(answers: Iterable[tuple[str, str]], lens: Lens) -> AnswerRates:
    """Check pairs of (raw JSON as the model wrote it, text); at least one."""
    schema = json_schema(lens)
    count = quoting = spans = exact = 0
    writing = _Writing()
    for raw, text in answers:
        count += 1
        answer = parse_answer(raw, schema)
        if answer is None:
            continue
        writing.add(answer["reasoning"])
        quoted = quoted_spans(answer["reasoning"])
        quoting += bool(quoted)
        spans += len(quoted)
        exact += sum(span in text for span in quoted)
    return AnswerRates(
        valid=writing.count / count,
        quoted=exact / spans if spans else None,
        with_quote=quoting / count,
        openings=len(writing.openings),
        copied=writing.copied / max(writing.count, 1),
        repeating=writing.repeating / max(writing.count, 1),
        distinct_2=len(writing.pairs) / max(writing.pairs.total(), 1),
        words=writing.words / max(writing.count, 1),
    )


class _Writing:
    """How varied the reasonings of a run are."""

    def __init__(self) -> None:
        self.count = self.words = self.copied = self.repeating = 0
        self.openings: set[tuple[str, ...]] = set()
        self.pairs: Counter[tuple[str, ...]] = Counter()
        self._seen: set[str] = set()

    def add(self, reasoning: str) -> None:
        """Count one more."""
        words = reasoning.split()
        self.count += 1
        self.words += len(words)
        self.openings.add(tuple(words[:OPENING_WORDS]))
        self.pairs.update(_runs(words, 2))
        self.copied += reasoning in self._seen
        self._seen.add(reasoning)
        threes = list(_runs(words, 3))
        self.repeating += len(set(threes)) < len(threes)


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    """Every so many words in a row."""
    return zip(*(words[start:] for start in range(length)), strict=False)


def parse_answer(raw: str, schema: dict[str, Any]) -> dict[str, str] | None:
    """The answer as a dict if it keeps :func:`~toolkit.contract.answer.json_schema`, else None.

    Stricter than JSON itself: a repeated key is refused.
    """
    try:
        pairs = json.loads(raw, object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return None
    if len(pairs) != len(schema["required"]) or {key for key, _ in pairs} != set(schema["required"]):
        return None
    return dict(pairs) if all(_keeps(value, schema["properties"][key]) for key, value in pairs) else None


def _keeps(value: object, rule: dict[str, Any]) -> bool:
    if not isinstance(value, str) or ("enum" in rule and value not in rule["enum"]):
        return False
    if not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
        return False
    # In a JSON schema `$` is the very end; Python's would let a last line feed pass.
    pattern = rule.get("pattern", "").removesuffix("$") + r"\Z"
    return "pattern" not in rule or re.search(pattern, value) is not None
