"""`emotion-lrm analyze`: which texts it reads, what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from toolkit.apps.analyze import decode, read_lines, read_texts
from toolkit.cli import main
from toolkit.errors import UsageError

from .conftest import StandIn

KEYS = [
    "text", "lens", "taxonomy", "mode", "emotion", "fine_emotion", "confidence", "abstained", "emotions", "scores",
    "coverage", "outside", "reasoning", "evidence", "model",
]  # fmt: skip


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_json_has_the_documented_keys_in_order(model: StandIn, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["--json", "--mode", "fast", "I feel ignored 😀"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert list(record) == KEYS
    assert (record["text"], record["reasoning"], record["evidence"]) == ("I feel ignored 😀", None, ["ignored"])
    assert "😀" in told.out
    assert told.err == ""


def test_several_texts_give_a_line_each_in_order(model: StandIn, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["analyze", "--json", "one", "two", "three"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one", "two", "three"]


def test_panels_of_several_texts_are_set_apart(model: StandIn, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["analyze", "one", "two"]) == 0
    assert "goemotions\n\nDISAPPOINTMENT" in capsys.readouterr().out


def test_a_lone_surrogate_survives_as_an_escape(model: StandIn, capsysbinary: pytest.CaptureFixture[bytes]) -> None:  # noqa: ARG001
    assert main(["--json", "broken \udcff byte"]) == 0
    out = capsysbinary.readouterr().out
    assert b'"broken \\udcff byte"' in out
    assert json.loads(out)["text"] == "broken \udcff byte"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hello\n", "hello"),
        (b"\xef\xbb\xbfhello\r\n", "hello"),
        (b"one\ntwo\n\n", "one\ntwo\n"),
        (b"caf\xc3\xa9 \xff\n", "café \ufffd"),
        ("a\u2028b\x85c".encode(), "a\u2028b\x85c"),
        (b"nul \x00 here", "nul \x00 here"),
    ],
)
def test_a_dash_reads_one_text(model: StandIn, monkeypatch: pytest.MonkeyPatch, content: bytes, text: str) -> None:
    feed(monkeypatch, content)
    assert main(["-"]) == 0
    assert model.seen == [text]


def test_lines_are_split_at_line_feeds_only(model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, "\ufeffone\r\ntwo\u2028still two\nthree\rstill three\nfour\x85\x0cfour".encode())
    assert main(["analyze", "--lines", "-"]) == 0
    assert model.seen == ["one", "two\u2028still two", "three\rstill three", "four\x85\x0cfour"]


@pytest.mark.parametrize("args", [["--lines"], ["analyze", "--lines"], ["--lines", "-"]])
def test_lines_come_from_standard_input(model: StandIn, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    feed(monkeypatch, b"a b\nc d\n")
    assert main(args) == 0
    assert model.seen == ["a b", "c d"]


def test_lines_of_an_argument(model: StandIn) -> None:
    assert main(["analyze", "--lines", "a b\nc\r\nd\u2028e"]) == 0
    assert model.seen == ["a b", "c", "d\u2028e"]


def test_empty_lines_are_named_and_the_rest_is_read(
    model: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b"one\n\n  \ntwo\n")
    assert main(["analyze", "--lines", "--json"]) == 3
    told = capsys.readouterr()
    assert model.seen == ["one", "two"]
    assert len(told.out.splitlines()) == 2
    assert told.err == "Line 2 is empty and was not read.\nLine 3 is empty and was not read.\n"


@pytest.mark.parametrize("args", [[""], ["analyze", "good", " \n\t"], ["analyze"], ["--json"], ["-"], ["--lines"]])
def test_nothing_to_read_is_wrong_usage(
    model: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    feed(monkeypatch, b"")
    assert main(args) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("Error: ")
    assert model.seen == []


def test_both_lenses_give_one_object_with_both_readings(model: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--lens", "both", "--json", "one", "two"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(record) for record in records] == [["text", "author", "reader", "divergence"]] * 2
    assert list(records[0]["author"]) == list(records[0]["reader"]) == KEYS
    assert list(records[0]["divergence"]) == [
        "score", "outside", "author_emotion", "reader_emotion", "noise_line", "summary"
    ]  # fmt: skip
    assert sorted(model.seen) == ["one", "one", "two", "two"]


def test_both_lenses_stand_one_under_the_other(model: StandIn, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert main(["--lens", "both", "I feel ignored"]) == 0
    told = capsys.readouterr().out
    assert told.index("DISAPPOINTMENT") < told.index("SAD ") < told.rindex("cannot be compared")


@pytest.mark.parametrize(
    "args", [["--taxonomy", "empathetic", "x y"], ["--lens", "both", "--taxonomy", "ekman", "x y"]]
)
def test_what_the_model_cannot_do_is_wrong_usage(model: StandIn, args: list[str]) -> None:  # noqa: ARG001
    assert main(args) == 2


def test_the_functions_work_without_a_command_line() -> None:
    assert read_texts(["a", "-"], io.BytesIO(b"b\n")) == ["a", "b"]
    with pytest.raises(UsageError, match="empty"):
        read_texts(["a", " "], io.BytesIO())
    blank: list[int] = []
    assert list(read_lines(["x\n\ny"], io.BytesIO(), blank.append)) == ["x", "y"]
    assert blank == [2]
    assert decode(b"\xef\xbb\xbf\xe2\x82") == "\ufffd"


def test_lines_are_read_only_as_they_are_needed() -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            buffer[:4] = b"x y\n"
            return 4

    lines = read_lines(["-"], io.BufferedReader(Endless()), lambda _: None)
    assert [next(lines) for _ in range(3)] == ["x y"] * 3


def test_an_unreadable_config_file_stops_before_the_model(
    model: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMOTION_LRM_CONFIG", str(tmp_path))
    assert main(["some text"]) == 2
    assert model.seen == []
