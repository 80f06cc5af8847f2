"""Filters on the quality of a text: each keeps an example, drops it or lowers its weight, and says why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from toolkit.contract.example import Example
from toolkit.corpora.spans import only_masks, word_lists, words_of
from toolkit.corpora.yaml_assets import read_yaml

_LINK = re.compile(r"(?:https?://|www\.)\S+|\b\w+\.(?:com|org|net|co\.uk|io)\b\S*", re.IGNORECASE)
_SYMBOL = re.compile(r"[\U0001f000-\U0001faff\u2600-\u27bf]|[:;=][-']?[()DPp/\\|]|<3")
# What only advertisers and automatic accounts write.
_SPAM = re.compile(
    r"\b(?:i am a bot|i'm a bot|beep boop|performed automatically|subscribe to my|check out my (?:channel|store|site)"
    r"|use (?:my |the )?(?:promo |discount )?code (?=\w*\d)\w{4,}|promo code|free gift cards?|click here"
    r"|limited[- ]time offer|buy now|100% free|work from home and earn)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a filter has against an example: the reason, and the factor for its weight; 0 drops it."""

    reason: str
    factor: float = 0.0


Filter = Callable[[Example], Finding | None]


def too_short(min_words: int) -> Filter:
    """Drops texts of fewer than ``min_words`` words, unless an emoji or emoticon speaks for itself."""

    def judge(example: Example) -> Finding | None:
        short = len(words_of(example.text)) < min_words and not _SYMBOL.search(example.text)
        return Finding("too short") if short else None

    return judge


def masks_only(example: Example) -> Finding | None:
    """Drops texts of nothing but masks."""
    empty = bool(words_of(example.text)) and only_masks(example.text) and not _SYMBOL.search(example.text)
    return Finding("nothing but masks") if empty else None


def links(max_share: float, factor: float) -> Filter:
    """Drops texts that are mostly links and weighs down others that hold one."""

    def judge(example: Example) -> Finding | None:
        found = len(_LINK.findall(example.text))
        if not found:
            return None
        if found > max_share * len(example.text.split()):
            return Finding("mostly links")
        return Finding("holds a link", factor) if factor < 1 else None

    return judge


def repeats(max_share: float) -> Filter:
    """Drops texts of six words or more of which a single word makes up too large a share."""

    def judge(example: Example) -> Finding | None:
        forms = [w.form for w in words_of(example.text)]
        if len(forms) < 6:
            return None
        most = Counter(forms).most_common(1)[0][1]
        return Finding("one word over and over") if most > max_share * len(forms) else None

    return judge


def foreign(max_share: float) -> Filter:
    """Drops texts too many of whose letters are not ASCII."""

    def judge(example: Example) -> Finding | None:
        letters = [c for c in example.text if c.isalpha()]
        strange = sum(not c.isascii() for c in letters)
        return Finding("hardly any English letters") if letters and strange > max_share * len(letters) else None

    return judge


def spam(example: Example) -> Finding | None:
    """Drops what advertisers and automatic accounts write."""
    return Finding("spam or a bot") if _SPAM.search(example.text.replace("’", "'")) else None


def other_language(share: float) -> Filter:
    """Drops texts of four words or more in which ``share`` of the words are function words of one other language.

    English must have fewer of its own: the lists of ``data/configs/languages.yaml`` hold no English words.
    """

    def judge(example: Example) -> Finding | None:
        forms = [w.form for w in words_of(example.text) if not w.is_mask]
        if len(forms) < 4:
            return None
        strange = max(sum(form in known for form in forms) for known in _function_words().values())
        english = sum(form in word_lists().stop for form in forms)
        return Finding("another language") if strange >= share * len(forms) and strange > english else None

    return judge


@cache
def _function_words() -> dict[str, frozenset[str]]:
    raw: dict[str, str] = read_yaml("data", "configs", "languages.yaml")
    return {language: frozenset(words.split()) for language, words in raw.items()}
