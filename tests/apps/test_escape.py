"""Nothing foreign acts on a terminal or breaks a line of JSON."""

from __future__ import annotations

import json

import pytest

from toolkit.apps.escape import json_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\x00b\x07", "a\\x00b\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u2028b\x85c\rd", "a\\u2028b\\x85c\\x0dd"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("\ud800!", "\\ud800!"),
        ("\ufeffx\u200b", "\\ufeffx\\u200b"),
        ("👨‍👩‍👧 می‌خواهم", "👨‍👩‍👧 می‌خواهم"),
        ("[red]x[/red] <b>", "[red]x[/red] <b>"),
        ("\U000e0067", "\\U000e0067"),
    ],
)
def test_hidden_characters_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["é 😀 “x”", "\ud800", "a\u2028b\x85c", "\x9b31m \u202e", 'quote " \\ \x00 \n'])
def test_a_json_line_is_one_line_of_utf8_and_comes_back_unchanged(text: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line) == {"text": text}
    assert len(line.decode("utf-8").splitlines()) == 1
    assert not set(line.decode()) & set("\x85\u2028\x9b\u202e")


def test_a_json_line_stays_readable() -> None:
    assert json_line({"text": "é 😀 “x”"}) == '{"text": "é 😀 “x”"}\n'.encode()


def test_a_json_line_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        json_line({"x": float("nan")})
