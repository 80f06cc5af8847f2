"""What the model writes: one JSON object; its schema, its grammar, and the words it quotes."""

from __future__ import annotations

import re
from typing import Any

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt
from toolkit.contract.taxonomy import load_taxonomy


def quoted_spans(reasoning: str) -> list[str]:
    """What stands between typographic quotes, in order."""
    spec = load_prompt()
    marks = spec.open_quote + spec.close_quote
    return re.findall(f"{spec.open_quote}([^{marks}]+){spec.close_quote}", reasoning)


def count_words(text: str) -> int:
    """Words as white space separates them, the unit of the quoted share."""
    return len(text.split())


def find_evidence(text: str, reasoning: str | None) -> tuple[str, ...]:
    """The quoted spans that are exact substrings of ``text``, without repeats, within the allowed share of its words.

    A span that would take the total over 40 % of the text's words is left out.
    """
    allowed = int(load_prompt().max_quoted_share * count_words(text))
    kept: list[str] = []
    used = 0
    for span in quoted_spans(reasoning or ""):
        words = count_words(span)
        if span in text and span not in kept and words and used + words <= allowed:
            kept.append(span)
            used += words
    return tuple(kept)


def render_answer(emotion: str, reasoning: str | None) -> str:
    """The JSON object exactly as the model writes it; without reasoning the label alone."""
    spec = load_prompt()
    return f"{spec.prefill}{emotion}" + (spec.close if reasoning is None else f"{spec.bridge}{reasoning}{spec.close}")


def json_schema(lens: Lens, with_reasoning: bool = True) -> dict[str, Any]:
    """The JSON schema of the answer through ``lens``."""
    labels = list(load_taxonomy(lens.native).labels)
    properties: dict[str, Any] = {"emotion": {"type": "string", "enum": labels}}
    if with_reasoning:
        limit = load_prompt().max_characters
        properties["reasoning"] = {
            "type": "string",
            "minLength": 1,
            "maxLength": limit,
            "pattern": '^[A-Z][^"\\\\\\u0000-\\u001f\\u007f]*$',
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Emotion-LRM answer through the lens {lens}",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def gbnf(lens: Lens, with_reasoning: bool = True) -> str:
    """The GBNF grammar of the answer through ``lens``, for llama.cpp."""
    labels = " | ".join(f'"{label}"' for label in load_taxonomy(lens.native).labels)
    spec = load_prompt()
    middle = f"{literal(spec.bridge)} reasoning " if with_reasoning else ""
    lines = [f"root ::= {literal(spec.prefill)} emotion {middle}{literal(spec.close)}", f"emotion ::= {labels}"]
    if with_reasoning:
        lines.append(f'reasoning ::= [A-Z] [^"\\\\\\x00-\\x1F\\x7F]{{0,{spec.max_characters - 1}}}')
    return "\n".join(lines) + "\n"


def literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
