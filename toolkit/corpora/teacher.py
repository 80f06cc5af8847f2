"""The template teacher: writes a reasoning for a labelled text from what the lexicon finds and the YAML knows.

It needs no model, and nothing in it is left to chance. The words it quotes are those that carry the label in the
interpretable model. What it says of them hangs on what stands in the text for all to see: the kind of cue, a negation,
an intensifier, an exclamation or a question, who speaks of whom, the length; and on the label and its close rival.
Texts alike are thus argued alike, which is what a small model can learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from toolkit.contract.answer import count_words
from toolkit.contract.example import Example
from toolkit.contract.prompt import load_prompt, prepare_text
from toolkit.contract.taxonomy import NEUTRAL, load_taxonomy
from toolkit.corpora.gate import outside_quotes
from toolkit.corpora.knowledge import Appraisal, Frames, load_appraisals, load_frames
from toolkit.corpora.lexicon import FoldedLexicon, Lexicon, Span
from toolkit.corpora.spans import MAX_WORDS, allowance, central_span, word_lists, words_of
from toolkit.corpora.teachers import Ask, NoAnswer

MIN_WORDS, LONGEST = 11, 34
WEAK = 1.0  # log-odds below which a quoted span does not carry its label alone
LONG = 14  # words from which a text counts as long
_PERSON = re.compile(r"\{(them|their|they)(?: ([\w']+)/([\w']+))?\}")
_SHIFTS = 24
_SPECIAL = ("caps", "negated", "intensified", "exclaim", "question", "evaluative")
# Words that may stand twice in one reasoning, and short ones that may not.
_REPEATABLE = {"author", "speaker", "author's", "speaker's", "which", "there", "other", "another", "their", "caring"}
_REPEATABLE |= {"somebody", "something"}
_SPEECH = {"says", "say", "said", "word", "text", "put", "puts", "sees", "see", "show"}


@dataclass(frozen=True, slots=True)
class Sight:
    """What the teacher sees in a text with its label; the wording follows from nothing else.

    Attributes:
        spans: what will be quoted, in the order of the text.
        group: the group of frames that fits the quotations.
        cue: the label's cue that the quoted words match, counted from 1; 0 for none.
        word: the place of the matching word among that cue's words.
        person: 0 where the text speaks in the first person, 1 in the second, 2 in neither.
        long: whether the text has many words.
    """

    spans: tuple[str, ...]
    group: str
    cue: int
    word: int
    person: int
    long: bool


class TemplateTeacher:
    """Writes chains; the same example and attempt always give the same one."""

    def __init__(self, lexicon: Lexicon | FoldedLexicon) -> None:
        self.lexicon = lexicon
        self.frames: Frames = load_frames()
        self._last: tuple[tuple[str, str], tuple[list[Span], bool]] | None = None

    def is_weak(self, example: Example) -> bool:
        """Whether no words of the text carry ``example.labels[0]`` by themselves."""
        return self.look(example).group == "weak"

    def write(self, example: Example, attempt: int = 0, rival: str | None = None) -> str | None:
        """One or two sentences that argue for ``example.labels[0]``, or None where no fitting form is left.

        Args:
            attempt: another number gives another wording.
            rival: an akin label that the lexicon finds nearly as likely; the reasoning sets it aside.
        """
        return next(islice(self._forms(example, rival), attempt, None), None)

    def write_all(self, asks: Sequence[Ask]) -> Iterator[str | NoAnswer]:
        """The answer to each of ``asks``; see :class:`~toolkit.corpora.teachers.Teacher`."""
        for ask in asks:
            yield self.write(ask.example, ask.attempt, ask.rival) or NoAnswer("no fitting form")

    def usage(self) -> dict[str, int]:
        """Nothing: a template costs no tokens."""
        return {}

    def look(self, example: Example) -> Sight:
        """What the wording for this example will hang on."""
        text, appraisal = prepare_text(example.text), load_appraisals(example.lens)[example.labels[0]]
        limit = allowance(text)
        spans, weak = self._candidates(text, appraisal, limit)
        chosen = spans[:1] + [s for s in spans[1:2] if _worth(text, spans[0], s, limit, appraisal.label == NEUTRAL)]
        chosen.sort(key=lambda s: s.start)
        quoted = tuple(s.of(text) for s in chosen)
        cue, word = _cue(appraisal, quoted)
        forms = {w.form for w in words_of(text)}
        lists = word_lists()
        person = 0 if forms & lists.first_person else 1 if forms & lists.second_person else 2
        group = _group(text, chosen, weak and not cue, appraisal.asks)
        return Sight(quoted, group, cue, word, person, count_words(text) >= LONG)

    def _forms(self, example: Example, rival: str | None) -> Iterator[str]:
        """Every fitting wording once, the first choice first."""
        appraisal, sight = load_appraisals(example.lens)[example.labels[0]], self.look(example)
        voice = load_taxonomy(example.lens.native).index(appraisal.label)
        against = appraisal.against.get(rival or "")
        seen: set[str] = set()
        for shift in range(2 * _SHIFTS):
            aside = rival if against and shift < _SHIFTS else None
            sentence = self._compose(example, sight, voice + shift, aside)
            if sentence not in seen and MIN_WORDS <= count_words(sentence) <= LONGEST and _flows(sentence):
                seen.add(sentence)
                yield sentence

    def _compose(self, example: Example, sight: Sight, voice: int, rival: str | None) -> str:
        """The wording of one ``voice``, a number that chooses among frames and endings."""
        knowledge = load_appraisals(example.lens)
        appraisal = knowledge[example.labels[0]]
        plain = appraisal.label == NEUTRAL
        groups = self.frames.plain_groups if plain else self.frames.groups
        group = sight.group if sight.group in groups else "word" if count_words(sight.spans[0]) == 1 else "phrase"
        frames = [f for f in groups[group] if not rival or ("{end}" in f and "{case}" not in f)] or groups[group]
        ends = self.frames.contrasts if rival else self.frames.plain_ends if plain else self.frames.ends
        ends = tuple(e for e in ends if appraisal.adjective or "{adj}" not in e)
        signals, stances = _closest(appraisal, sight)
        turn = sight.word if sight.cue else 2 * sight.person + sight.long
        who = self.frames.who[example.lens]
        slots = {
            "end": _pick(ends, 3 * voice + sight.cue + sight.long),
            "case": _pick(appraisal.cases, 2 * sight.cue + sight.person),
            "signal": _pick(signals, turn),
            "stance": _pick(stances, turn),
            "who": who,
            "noun": appraisal.noun,
            "adj": appraisal.adjective or "",
            "rival": knowledge[rival].noun if rival else "",
            "against": appraisal.against[rival] if rival else "",
        }
        return _finish(_fill(_pick(frames, voice + sight.cue), slots), sight.spans, who)

    def _candidates(self, text: str, appraisal: Appraisal, limit: int) -> tuple[list[Span], bool]:
        """Spans to quote, best first, and whether even the best hardly carries the label."""
        key = (text, appraisal.label)
        if self._last is None or self._last[0] != key:  # several attempts at one text follow each other
            self._last = (key, self._search(text, appraisal, limit))
        return self._last[1]

    def _search(self, text: str, appraisal: Appraisal, limit: int) -> tuple[list[Span], bool]:
        spans = self.lexicon.carriers(text, appraisal.label, min(limit, MAX_WORDS)) if limit else []
        plain = appraisal.label == NEUTRAL
        if plain:
            spans = _prefer_phrases(text, spans)
        weak = not plain and bool(spans) and spans[0].weight < WEAK
        if limit and (not spans or weak):
            return _fallback(text, appraisal, spans, min(limit, MAX_WORDS)), True
        return (spans if plain else _prefer_cues(text, appraisal, spans)), weak


def _pick(options: Sequence[str], number: int) -> str:
    return options[number % len(options)]


def _group(text: str, spans: list[Span], weak: bool, asks: bool) -> str:
    """Which group of frames fits what is quoted."""
    if not spans:
        return "none"
    span, lists = spans[0], word_lists()
    quoted = span.of(text)
    words = [w.form for w in words_of(quoted)]
    stop = re.search(r"[.?!\n]", text[span.end :])
    if weak:
        return "question" if asks and stop is not None and stop.group() == "?" else "weak"
    if len(spans) == 2:
        return "two"
    checks = {
        "caps": quoted.isupper() and len(quoted) > 4 and not text.isupper(),
        "negated": any(w in lists.negations for w in words) and "wait" not in words,  # "can't wait" denies nothing
        "intensified": len(words) > 1 and words[0] in lists.intensifiers,
        "exclaim": stop is not None and stop.group() == "!",
        "question": stop is not None and stop.group() == "?",
        "evaluative": len(words) == 1 and words[0] in lists.evaluative,
    }
    return next((mark for mark in _SPECIAL if checks[mark]), "word" if len(words) == 1 else "phrase")


def _prefer_cues(text: str, appraisal: Appraisal, spans: list[Span]) -> list[Span]:
    """Spans that hold a cue of the label before others that are hardly stronger."""
    return sorted(spans, key=lambda s: -s.weight * (1.6 if _cue(appraisal, (s.of(text),))[0] else 1.0))


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
    strong = second.weight >= (0.3 if plain else max(WEAK, 0.6 * first.weight))
    return strong and words <= limit and first.of(text).lower() != second.of(text).lower()


def _closest(appraisal: Appraisal, sight: Sight) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences of the cue that the quoted words match; without one those that fit the label at large."""
    if not sight.cue:
        return appraisal.signals, appraisal.stances
    cue = appraisal.cues[sight.cue - 1]
    return cue.signals or appraisal.signals, cue.stances or appraisal.stances


def _cue(appraisal: Appraisal, spans: tuple[str, ...]) -> tuple[int, int]:
    """The first cue that the quoted words match, counted from 1, and which of its words it was; (0, 0) for none."""
    quoted = " | ".join(spans).replace("’", "'")
    for number, cue in enumerate(appraisal.cues, 1):
        match = cue.pattern.search(quoted)
        if match:
            return number, cue.place(match.group())
    return 0, 0


def _flows(sentence: str) -> bool:
    """Whether no clause is hooked on by the same word twice and no telling word comes twice."""
    prose = outside_quotes(sentence).lower()
    if prose.count(", and ") > 1 or prose.count(", which ") > 1 or prose.count(", as ") + prose.count(", for ") > 1:
        return False
    if prose.count(":") + prose.count(";") > 1:
        return False
    words = [w for w in re.findall(r"[a-z']+", prose) if (len(w) > 4 and w not in _REPEATABLE) or w in _SPEECH]
    return len(words) == len(set(words))


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
