"""What the model wrote: does it keep the contract, and do its quotes stand in the text?"""

from __future__ import annotations

import json
import re
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
    """

    valid: float
    quoted: float | None
    with_quote: float
    openings: int


def rate_answers(answers: Iterable[tuple[str, str]], lens: Lens) -> AnswerRates:
    """Check pairs of (raw JSON as the model wrote it, text); at least one."""
    schema = json_schema(lens)
    count = valid = quoting = spans = exact = 0
    openings: set[tuple[str, ...]] = set()
    for raw, text in answers:
        count += 1
        answer = parse_answer(raw, schema)
        if answer is None:
            continue
        valid += 1
        quoted = quoted_spans(answer["reasoning"])
        quoting += bool(quoted)
        spans += len(quoted)
        exact += sum(span in text for span in quoted)
        openings.add(tuple(answer["reasoning"].split()[:OPENING_WORDS]))
    return AnswerRates(valid / count, exact / spans if spans else None, quoting / count, len(openings))


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
