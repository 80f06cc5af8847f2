"""The nasty texts as requests to a real server: each comes back as it was, or is refused by its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.apps.api.bodies import LONGEST_TEXT
from toolkit.apps.api.load_test import is_enough, load_test
from toolkit.cli import main

from ..apps.api.conftest import COMMAND, Server, started
from .conftest import check_reading, check_sentence
from .nasty import BLANK, LARGE, NAMES, RAW
from .test_files import as_user, posix

Texts = dict[str, str]


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a user starts it."""
    errors = tmp_path_factory.mktemp("server") / "stderr"
    with started(errors, COMMAND, ["--model", str(tiny), "--threads", "1", "--timeout", "600"], {}) as running:
        yield running


@pytest.mark.parametrize("mode", ["fast", "explain"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_one_text(server: Server, texts: Texts, name: str, mode: str) -> None:
    answer = server.analyze(texts[name], mode=mode)
    assert answer.status == 200
    check_reading(answer.json, texts[name], mode)


def test_many_texts(server: Server, texts: Texts) -> None:
    given = texts | BLANK
    items = [{"id": name, "text": text} for name, text in given.items() if name not in LARGE]
    answer = server.ask("/analyze_batch", {"texts": items, "lens": "reader"})
    assert answer.status == 200
    assert len(answer.rows) == len(items)
    for row, item in zip(answer.rows, items, strict=True):
        assert (row["id"], row["status"]) == (item["id"], "empty" if item["id"] in BLANK else "ok")
        if row["status"] == "ok":
            check_reading(row, item["text"], "explain")


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_a_blank_text(server: Server, text: str) -> None:
    answer = server.analyze(text)
    assert (answer.status, answer.code) == (422, "empty_text")


@pytest.mark.parametrize("text", [*LARGE.values(), "a" * (LONGEST_TEXT + 1)], ids=[*LARGE, "one letter more"])
def test_a_large_text(server: Server, text: str) -> None:
    answer = server.analyze(text)
    assert (answer.status, answer.code) == (413, "text_too_long")
    rows = server.ask("/analyze_batch", {"texts": [text, "after"], "mode": "fast"}).rows
    assert [row["status"] for row in rows] == ["error", "ok"]


def test_the_longest_text(server: Server) -> None:
    for text in ("x" * LONGEST_TEXT, "a b " * (LONGEST_TEXT // 4)):
        assert server.analyze(text, mode="fast").json["text"] == text


@pytest.mark.parametrize("name", ["latin-1", "no utf-8 at all", "cut off"])
def test_bytes_that_are_no_utf_8(server: Server, name: str) -> None:
    answer = server.ask("/analyze_text", raw=b'{"text": "' + RAW[name][0] + b'"}')
    assert (answer.status, answer.code) == (400, "not_json")


def test_a_surrogate_in_utf_8_is_one_as_if_escaped(server: Server) -> None:
    raw, escaped = (b'{"text": "%s lone", "mode": "fast"}' % one for one in (b"\xed\xa0\x80", b"\\ud800"))
    answer = server.ask("/analyze_text", raw=raw)
    assert answer.json["text"] == "\ud800 lone"
    assert answer.body == server.ask("/analyze_text", raw=escaped).body


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 5000, "true", '["a"]', '{"a": 1}'])
def test_what_is_no_text(server: Server, value: str) -> None:
    answer = server.ask("/analyze_text", raw=f'{{"text": {value}}}'.encode())
    assert answer.status in (400, 422)
    assert answer.code in ("not_json", "wrong_type")
    assert len(answer.body) < 1000


@posix
def test_a_key_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, folder, locked = (tmp_path / name for name in ("missing", "folder", "locked"))
    folder.mkdir()
    locked.touch(0)
    for path in (missing, folder):
        code = main(["serve", "--api-key-file", str(path)])
        assert check_sentence(code, capsys.readouterr().err).endswith(f": {path}.")
    done = as_user("serve", "--api-key-file", str(locked))
    assert check_sentence(done.returncode, done.stderr).endswith(f": {locked}.")


def test_the_load_test_runs_and_says_what_is_too_little(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.apps.api.load_test.LEAST_EXPLAIN", 999)
    options = ["--model", str(tiny), "--threads", "1", "--callers", "4", "--texts", "12", "--check"]
    done = CliRunner().invoke(load_test, options, catch_exceptions=False)
    assert done.exit_code == 1
    assert done.stderr == "Error: The server carries too little: explain must reach 999 and fast 0.9.\n"
    assert done.stdout.count(" texts/s ") == 4
    assert re.search(r"explain, 4 callers to one: [\d.]+; fast, server to in process: [\d.]+\n$", done.stdout)


def test_what_the_load_test_takes_for_enough() -> None:
    assert is_enough(2.0, 0.9)
    assert not is_enough(1.99, 1.0)
    assert not is_enough(3.0, 0.89)


def test_nothing_above_ended_the_server(server: Any) -> None:
    assert server.ask("/ready").status == 200
    assert "Traceback" not in server.said
