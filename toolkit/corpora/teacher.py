"""The template teacher: writes a reasoning for a labelled text from what the lexicon finds and the YAML knows.

It needs no model. The words it quotes are those that carry the label in the interpretable model; what it says about
them is appraisal knowledge of the label; the frames vary with what is quoted: one word or several, a question, an
exclamation, a negation, an intensifier, capitals, no strong carrier, nothing that may be quoted.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.contract.prompt import load_prompt, prepare_text
from toolkit.corpora.gate import outside_quotes
from toolkit.corpora.knowledge import Appraisal, Cue, Frames, load_appraisals, load_frames
from toolkit.corpora.lexicon import FoldedLexicon, Lexicon, Span
from toolkit.corpora.spans import MAX_WORDS, allowance, central_span, word_lists, words_of

MIN_WORDS, LONGEST = 12, 36
WEAK = 1.0  # log-odds below which a quoted span does not carry its label alone
_PERSON = re.compile(r"\{(them|their|they)(?: ([\w']+)/([\w']+))?\}")
_TRIES = 40
# Words that may stand twice in one reasoning, and short ones that may not.
_REPEATABLE = {"author", "writer", "author's", "writer's", "which", "there", "other", "another", "their", "caring"}
_REPEATABLE |= {"somebody", "something"}
_SPEECH = {"says", "say", "said", "word", "text", "put", "puts", "sees", "see", "show"}


@dataclass(frozen=True, slots=True)
class Quotes:
    """What a reasoning will quote, in the order of the text, and what marks it."""

    spans: tuple[str, ...]
    marks: frozenset[str]
    weak: bool


class TemplateTeacher:
    """Writes chains; the same seed, example and attempt always give the same one."""

    def __init__(self, lexicon: Lexicon | FoldedLexicon, seed: int = 0) -> None:
        self.lexicon = lexicon
        self.seed = seed
        self.frames: Frames = load_frames()
        self._last: tuple[tuple[str, str], tuple[list[Span], bool]] | None = None

    def is_weak(self, example: Example) -> bool:
        """Whether no words of the text carry ``example.labels[0]`` by themselves."""
        appraisal = load_appraisals(example.lens)[example.labels[0]]
        return self._quotes(prepare_text(example.text), appraisal, random.Random(0)).weak

    def write(self, example: Example, attempt: int = 0, rival: str | None = None) -> str | None:
        """One or two sentences that argue for ``example.labels[0]``, or None where no fitting form was found.

        Args:
            attempt: another number gives another wording.
            rival: a label that the lexicon finds nearly as likely; now and then the reasoning sets it aside.
        """
        chance = random.Random(f"{self.seed}|{example.id}|{example.text}|{attempt}")
        knowledge = load_appraisals(example.lens)
        appraisal = knowledge[example.labels[0]]
        quotes = self._quotes(prepare_text(example.text), appraisal, chance)
        for _ in range(_TRIES):
            sentence = self._compose(appraisal, quotes, chance, knowledge[rival] if rival else None)
            if MIN_WORDS <= count_words(sentence) <= LONGEST and _flows(sentence):
                return sentence
        return None

    def _quotes(self, text: str, appraisal: Appraisal, chance: random.Random) -> Quotes:
        limit, plain = allowance(text), appraisal.label == "neutral"
        spans, weak = self._candidates(text, appraisal, limit)
        chosen = spans[:1] + [s for s in spans[1:2] if _worth(text, spans[0], s, limit, plain)]
        if len(chosen) == 2 and chance.random() > self.frames.share["two"]:
            chosen = chosen[:1]
        chosen.sort(key=lambda s: s.start)
        quoted = tuple(s.of(text) for s in chosen)
        return Quotes(quoted, self._marks(text, chosen), weak and not _cues(appraisal, quoted))

    def _candidates(self, text: str, appraisal: Appraisal, limit: int) -> tuple[list[Span], bool]:
        """Spans to quote, best first, and whether even the best hardly carries the label."""
        key = (text, appraisal.label)
        if self._last is None or self._last[0] != key:  # several attempts at one text follow each other
            self._last = (key, self._search(text, appraisal, limit))
        return self._last[1]

    def _search(self, text: str, appraisal: Appraisal, limit: int) -> tuple[list[Span], bool]:
        spans = self.lexicon.carriers(text, appraisal.label, min(limit, MAX_WORDS)) if limit else []
        plain = appraisal.label == "neutral"
        if plain:
            spans = _prefer_phrases(text, spans)
        weak = not plain and bool(spans) and spans[0].weight < WEAK
        if limit and (not spans or weak):
            return _fallback(text, appraisal, spans, min(limit, MAX_WORDS)), True
        return spans, weak

    def _marks(self, text: str, spans: list[Span]) -> frozenset[str]:
        """What is special about the quoted words: the frame groups that fit them."""
        if not spans:
            return frozenset({"none"})
        if len(spans) == 2:
            return frozenset({"two"})
        span, lists = spans[0], word_lists()
        words = [w.form for w in words_of(span.of(text))]
        stop = re.search(r"[.?!\n]", text[span.end :])
        quoted = span.of(text)
        checks = {
            "word": len(words) == 1,
            "phrase": len(words) > 1,
            "negated": any(w in lists.negations for w in words),
            "intensified": len(words) > 1 and words[0] in lists.intensifiers,
            "question": stop is not None and stop.group() == "?",
            "exclaim": stop is not None and stop.group() == "!",
            "caps": quoted.isupper() and len(quoted) > 4 and not text.isupper(),
            "evaluative": len(words) == 1 and words[0] in lists.evaluative,
        }
        return frozenset(mark for mark, holds in checks.items() if holds)

    def _compose(self, appraisal: Appraisal, quotes: Quotes, chance: random.Random, rival: Appraisal | None) -> str:
        plain = appraisal.label == "neutral"
        groups = self.frames.plain_groups if plain else self.frames.groups
        frame = chance.choice([f for f in groups[self._group(quotes, groups, chance)] if _fits(f, appraisal)])
        ends = self.frames.plain_ends if plain else self.frames.ends
        if rival and not plain and chance.random() < 0.25:
            ends = self.frames.contrasts
        signals, stances = _closest(appraisal, quotes, chance)
        who = chance.choice(self.frames.authors)
        slots = {
            "end": chance.choice([e for e in ends if _fits(e, appraisal)]),
            "case": chance.choice(appraisal.cases),
            "signal": chance.choice(signals),
            "stance": chance.choice(stances),
            "who": who,
            "noun": appraisal.noun,
            "adj": appraisal.adjective or "",
            "rival": rival.noun if rival else "",
        }
        return _finish(_fill(frame, slots), quotes.spans, who)

    def _group(self, quotes: Quotes, groups: dict[str, list[str]], chance: random.Random) -> str:
        """Which group of frames to use for these quotes."""
        for always in ("none", "two"):
            if always in quotes.marks:
                return always
        if quotes.weak:
            return "weak"
        for mark in ("caps", "negated", "intensified", "evaluative", "question", "exclaim"):
            if mark in quotes.marks and mark in groups and chance.random() < self.frames.share[mark]:
                return mark
        return chance.choices([("word" if "word" in quotes.marks else "phrase"), "any"], [0.3, 0.7])[0]


def _prefer_phrases(text: str, spans: list[Span]) -> list[Span]:
    """For a plain text: phrases before single words, strongest first, and nothing that speaks against neutral."""
    good = [s for s in spans if s.weight > 0 and not s.of(text).isupper()]
    return sorted(good, key=lambda s: (count_words(s.of(text)) == 1, "[" in s.of(text), -s.weight))


def _fallback(text: str, appraisal: Appraisal, spans: list[Span], limit: int) -> list[Span]:
    """Where the lexicon finds little: the words around a cue of the label, else its best phrase, else the centre."""
    for cue in appraisal.cues:
        match = cue.pattern.search(text)
        if match and len(match.group()) > 3:
            found = central_span(text, min(limit, 3), match.start())
            if found:
                return [Span(*found, 0.0)]
    if spans and count_words(spans[0].of(text)) > 1:
        return spans[:1]
    centre = central_span(text, limit)
    return [Span(*centre, 0.0)] if centre else spans[:1]


def _worth(text: str, first: Span, second: Span, limit: int, plain: bool) -> bool:
    """Whether a second quotation is nearly as strong as the first and fits into the allowance."""
    words = count_words(first.of(text)) + count_words(second.of(text))
    strong = second.weight >= (0.2 if plain else max(WEAK, 0.45 * first.weight))
    return strong and words <= limit and first.of(text).lower() != second.of(text).lower()


def _closest(appraisal: Appraisal, quotes: Quotes, chance: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences of a cue that the quoted words match, mostly; else those that fit the label at large."""
    matching = _cues(appraisal, quotes.spans)
    if matching and chance.random() < 0.8:
        cue = matching[0]
        return cue.signals or appraisal.signals, cue.stances or appraisal.stances
    return appraisal.signals, appraisal.stances


def _cues(appraisal: Appraisal, spans: tuple[str, ...]) -> list[Cue]:
    quoted = " | ".join(spans).replace("’", "'")
    return [cue for cue in appraisal.cues if cue.pattern.search(quoted)]


def _flows(sentence: str) -> bool:
    """Whether no clause is hooked on by the same word twice and no telling word comes twice."""
    prose = outside_quotes(sentence).lower()
    if prose.count(", and ") > 1 or prose.count(", which ") > 1 or prose.count(", as ") + prose.count(", for ") > 1:
        return False
    words = [w for w in re.findall(r"[a-z']+", prose) if (len(w) > 4 and w not in _REPEATABLE) or w in _SPEECH]
    return len(words) == len(set(words))


def _fits(form: str, appraisal: Appraisal) -> bool:
    return appraisal.adjective is not None or "{adj}" not in form


def _fill(frame: str, slots: dict[str, str]) -> str:
    """Put the slots in; those of the author's person and the quotes stay."""
    text = frame.replace("{end}", slots["end"])
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
        text = text.replace("{" + name.capitalize() + "}", value[:1].upper() + value[1:])
    return text


def _finish(text: str, spans: tuple[str, ...], who: str) -> str:
    """Resolve the author's person, capitalise sentences, and put the quoted words in."""
    parts, known, at = [], False, 0
    for match in _PERSON.finditer(text):
        parts.append(text[at : match.start()])
        known = known or who in "".join(parts).lower()
        parts.append(_person(match, known, who))
        known, at = True, match.end()
    text = "".join(parts) + text[at:]
    text = re.sub(r"(^|\. )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    spec = load_prompt()
    for slot, span in zip(("{q}", "{q2}"), spans, strict=False):
        text = text.replace(slot, f"{spec.open_quote}{span}{spec.close_quote}")
    return text


def _person(match: re.Match[str], known: bool, who: str) -> str:
    case, plural, singular = match.groups()
    verb = f" {plural if known else singular}" if plural else ""
    if known:
        return f"{case}{verb}"
    return f"{who}'s" if case == "their" else f"{who}{verb}"
