"""What may be written inside the reasoning, token by token."""

import numpy as np
import pytest

from toolkit.contract.prompt import load_prompt
from toolkit.inference.reasoning import ReasoningWriter, next_token

TEXT = "I feel disappointed and ignored by my own team today"  # ten words: four may be quoted


def write(text: str, *pieces: str | bytes) -> tuple[ReasoningWriter, list[bool]]:
    writer = ReasoningWriter(text)
    raw = [p if isinstance(p, bytes) else p.encode() for p in pieces]
    return writer, [writer.accept(i, piece) for i, piece in enumerate(raw)]


def test_a_whole_reasoning_is_taken_and_ends_at_the_quotation_mark() -> None:
    writer, taken = write(TEXT, "Saying", " “", "ign", "ored", "”", " shows", " it", '."', "}")
    assert taken == [True] * 8 + [False]
    assert writer.done
    assert writer.finish() == "Saying “ignored” shows it."


@pytest.mark.parametrize(
    "pieces",
    [
        ("lower",),
        (" Space first",),
        ("“ignored”",),
        ("A\\n",),
        ("A", "\n"),
        ("A", "\x00"),
        ("A", '", "more": "'),
        ('"',),
        ("",),
        ("é".encode()[:1],),
        ("A “upset",),
        ("A “Ignored",),
        ("A “gnored”",),
        ("A “ignor”",),
        ("A “gnor",),
        ("A “disappointed and ignored by ",),
        ("A “ ignored",),
        ("A “”",),
        ("A ”",),
        ("A “disappointed “",),
        ("A “feel disappointed and ignored by",),
        ('A “ignored"',),
        (b"A\xff",),
    ],
)
def test_what_would_break_the_contract_is_refused(pieces: tuple[str | bytes, ...]) -> None:
    assert write(TEXT, *pieces)[1][-1] is False


def test_a_refused_token_leaves_no_trace() -> None:
    writer, _ = write(TEXT, "A", "\n", " b")
    assert writer.written == "A b"


def test_a_character_may_span_tokens_but_not_the_end() -> None:
    euro = "€".encode()
    writer, taken = write(TEXT, "A ", euro[:1], '"', euro[1:], '"}')
    assert taken == [True, True, False, True, True]
    assert writer.finish() == "A €"


def test_the_bytes_of_a_character_inside_a_quote_have_to_lead_somewhere() -> None:
    euro, closing = "€".encode(), "”".encode()
    assert write("It cost five € in all", "A “five ", euro[:2], euro[2:], "”")[1] == [True] * 4
    assert write("It cost five £ in all", "A “five ", euro[:2])[1][-1] is False
    assert write(TEXT, "A “ignored", closing[:1], closing[1:], " so")[1] == [True] * 4
    assert write(TEXT, "A “ignor", closing[:1])[1][-1] is False


def test_quoted_words_count_over_all_quotes() -> None:
    _, taken = write(TEXT, "A “feel disappointed” and “ignored by” and “team")
    assert taken == [False]
    _, taken = write(TEXT, "A “feel disappointed” and “ignored by” end.")
    assert taken == [True]


def test_a_text_too_short_to_quote_allows_no_quote() -> None:
    assert write("So sad", "A “")[1] == [False]


def test_a_reasoning_that_runs_on_is_stopped_and_cut_at_a_sentence() -> None:
    pieces = ["A word says it."] + [f" and {i}" for i in range(80)]
    writer = ReasoningWriter(TEXT)
    for i, piece in enumerate(pieces):
        writer.accept(i, piece.encode())
        if writer.exhausted():
            break
    assert len(writer.tokens) <= load_prompt().max_tokens
    assert writer.finish() == "A word says it."


def test_repetition_is_stopped() -> None:
    writer = ReasoningWriter(TEXT)
    for _ in range(3):
        for token, piece in enumerate(["And", " so", " it", " goes"]):
            writer.accept(token, piece.encode())
    assert writer.exhausted()


def test_the_walk_takes_the_best_token_that_is_allowed() -> None:
    pieces = [b'"', b"lower", b"Good", b"\n"]
    writer = ReasoningWriter(TEXT)
    assert next_token(writer, np.array([9.0, 8.0, 1.0, 7.0]), pieces) == 2
    assert next_token(writer, np.array([9.0, 8.0, 1.0, 7.0]), pieces) == 0
    assert writer.finish() == "Good"
