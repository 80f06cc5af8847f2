"""The nasty texts as requests to a real server: each comes back as it was, or is refused by its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.apps.api.bodies import LONGEST_TEXT
from toolkit.apps.api.load_test import load_test

from ..apps.api.conftest import COMMAND, Server, started
from .conftest import check_reading
from .nasty import BLANK, LARGE, NAMES, RAW

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


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 5000, "true", '["a"]', '{"a": 1}'])
def test_what_is_no_text(server: Server, value: str) -> None:
    answer = server.ask("/analyze_text", raw=f'{{"text": {value}}}'.encode())
    assert answer.status in (400, 422)
    assert answer.code in ("not_json", "wrong_type")
    assert len(answer.body) < 1000


def test_the_load_test_runs(tiny: Path) -> None:
    options = ["--model", str(tiny), "--threads", "1", "--callers", "4", "--texts", "12"]
    done = CliRunner().invoke(load_test, options, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.count(" texts/s ") == 4
    assert re.search(r"explain, 4 callers to one: [\d.]+; fast, server to in process: [\d.]+\n$", done.stdout)


def test_nothing_above_ended_the_server(server: Any) -> None:
    assert server.ask("/ready").status == 200
    assert "Traceback" not in server.said
