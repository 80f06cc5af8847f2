"""Foreign text on a terminal or in a JSON line: what would act on it, hide in it or break it becomes an escape."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Joiners belong to emoji and to several scripts; everything else of category Cf is invisible or reorders the line.
_KEPT = {"\n", "\t", "\u200c", "\u200d"}
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_hidden(character: str) -> bool:
    """Whether a character is a control, a lone surrogate, a bidi override or otherwise invisible."""
    return character not in _KEPT and unicodedata.category(character) in _ACTING


def visible(text: str) -> str:
    r"""The text with hidden characters as ``\x1b`` or ``\u202e``; line ends become ``\n``, tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(escaped(c) if is_hidden(c) else c for c in text.replace("\r\n", "\n"))


def escaped(character: str) -> str:
    r"""``\x1b``, ``\u202e`` or ``\U000e0067``."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def json_line(record: Mapping[str, Any]) -> bytes:
    r"""One JSON object as one UTF-8 line, readable as it is.

    Only what would break the line, act on a terminal or be no UTF-8 (a lone surrogate) is written as ``\uXXXX``, which
    every JSON reader gives back unchanged.

    Raises:
        ValueError: for NaN or an infinity, which JSON lacks.
    """
    written = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", written).encode() + b"\n"
