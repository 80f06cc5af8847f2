"""`emotion-lrm serve`: what callers get, what they are refused, and that nothing they do ends the server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from toolkit.apps.api.bodies import LONGEST_TEXT, MOST_TEXTS
from toolkit.apps.serve import check_extra, read_key
from toolkit.cli import main
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import EmotionLRMError, UsageError

from .conftest import JSON, eventually, holding

KEYS = [
    "text", "lens", "taxonomy", "mode", "emotion", "fine_emotion", "confidence", "abstained", "emotions", "scores",
    "coverage", "outside", "reasoning", "evidence", "model",
]  # fmt: skip

# Readings


def test_a_text_becomes_the_object_of_analyze(server: Any) -> None:
    answer = server.analyze("I feel ignored.")
    assert answer.status == 200
    assert list(answer.json) == KEYS
    assert list(answer.json["scores"]) == list(load_taxonomy("goemotions").labels)
    found = server.analyze("hello", lens="author", taxonomy="ekman", mode="fast").json
    assert (found["taxonomy"], found["mode"], found["text"]) == ("ekman", "fast", "hello")
    assert server.analyze("hello", lens=None, taxonomy=None, mode=None).json["taxonomy"] == "goemotions"
    assert server.analyze("hello", lens="reader").json["taxonomy"] == "empathetic"


def test_a_text_is_compared_through_both_lenses(server: Any) -> None:
    found = server.analyze("I feel ignored.", lens="both", taxonomy="shared10").json
    assert list(found) == ["text", "author", "reader", "divergence"]
    assert (found["author"]["lens"], found["reader"]["lens"]) == ("author", "reader")
    assert found["divergence"]["noise_line"] == 0.1


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_a_model_that_is_not_for_commercial_use_says_so(serving: Any, options: tuple[str, ...]) -> None:
    with serving("--lens", "both", *options) as server:
        assert server.analyze("I feel ignored.").status == 200
    assert server.said.count("its licence, CC-BY-NC-4.0, forbids commercial use.") == 1


def test_a_batch_is_answered_in_order_row_by_row(server: Any) -> None:
    texts = [
        "one",
        {"text": "two", "id": "b"},
        {"text": "  "},
        "raise",
        "x" * (LONGEST_TEXT + 1),
        {"text": "six", "id": 7},
    ]
    answer = server.ask("/analyze_batch", {"texts": texts, "mode": "fast", "taxonomy": "sentiment"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    rows = answer.rows
    assert [row["row"] for row in rows] == list(range(6))
    assert [row["id"] for row in rows] == [0, "b", 2, 3, 4, 7]
    assert [row["status"] for row in rows] == ["ok", "ok", "empty", "error", "error", "ok"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, True, False]
    assert {row["taxonomy"] for row in rows} == {"sentiment"}
    assert all(set(KEYS) <= set(row) for row in rows)


def test_a_batch_streams_and_ends_with_its_caller(serving: Any) -> None:
    with serving() as server:
        connection, response = server.begin("/analyze_batch", {"texts": ["text"] * 8 + ["sleep 600"], "mode": "fast"})
        assert json.loads(response.readline())["text"] == "text"
        response.close()
        connection.close()
        server.process.terminate()  # with the request still open this would wait for more than a minute
        assert server.process.wait(50) == 0


def test_many_callers_share_batches(server: Any) -> None:
    with ThreadPoolExecutor(50) as callers:
        blocked = callers.submit(server.analyze, "sleep 1")
        found = list(callers.map(lambda n: server.analyze(f"text {n}").json, range(100)))
    assert blocked.result().status == 200
    assert [one["text"] for one in found] == [f"text {n}" for n in range(100)]
    assert max(int(one["reasoning"].split()[2]) for one in found) > 4


def test_a_worker_that_dies_costs_a_retry(server: Any, tmp_path: Path) -> None:
    assert server.analyze(f"kill-once {tmp_path / 'mark'}").status == 200
    answer = server.analyze("abort")
    assert (answer.status, answer.code) == (500, "worker_died")
    eventually(lambda: server.ask("/ready").status == 200)


# Refusals


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": ""}, 422, "empty_text"),
        ({"text": " \n\u2003"}, 422, "empty_text"),
        ({}, 422, "missing_field"),
        ({"text": 7}, 422, "wrong_type"),
        ({"text": None}, 422, "wrong_type"),
        ([], 422, "wrong_type"),
        ("text", 422, "wrong_type"),
        ({"text": "a", "lens": "nobody"}, 422, "unknown_value"),
        ({"text": "a", "taxonomy": "plutchik"}, 422, "unknown_value"),
        ({"text": "a", "mode": "slow"}, 422, "unknown_value"),
        ({"text": "a", "mode": ["fast"]}, 422, "unknown_value"),
        ({"text": "a", "taxonomy": "empathetic"}, 422, "not_possible"),
        ({"text": "a", "lens": "both", "taxonomy": "ekman"}, 422, "not_possible"),
        ({"text": "a", "taxnomy": "ekman"}, 422, "unknown_field"),
        ({"text": "a", "k" * 100_000: 1}, 422, "unknown_field"),
        ({"text": "x" * 1_000_000}, 413, "text_too_long"),
        ({"text": "😀" * 100_000}, 413, "text_too_long"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(server: Any, body: object, status: int, code: str) -> None:
    answer = server.ask("/analyze_text", body)
    assert (answer.status, answer.code) == (status, code)
    assert len(answer.body) < 1000


def test_a_refusal_names_what_there_is(server: Any) -> None:
    assert server.analyze("a", taxnomy="ekman").json["error"]["hint"] == "Did you mean 'taxonomy'?"
    assert "'goemotions', 'ekman'" in server.analyze("a", taxonomy="plutchik").json["error"]["hint"]
    assert server.analyze("a", taxonomy="empathetic").json["error"]["hint"].startswith("Allowed with author: ")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"texts": []}, 422, "no_texts"),
        ({"texts": ["a"] * (MOST_TEXTS + 1)}, 413, "too_many_texts"),
        ({"texts": ["a"] * 100_000}, 413, "too_many_texts"),
        ({"texts": "a"}, 422, "wrong_type"),
        ({"texts": ["a", 7]}, 422, "wrong_type"),
        ({"texts": [{"text": "a", "label": "b"}]}, 422, "unknown_field"),
        ({"texts": ["a"], "lens": "both"}, 422, "unknown_value"),
        ({"texts": ["a"], "taxonomy": "empathetic"}, 422, "not_possible"),
        ({"text": "a"}, 422, "missing_field"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_whole(server: Any, body: object, status: int, code: str) -> None:
    answer = server.ask("/analyze_batch", body)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b'{"text": "\xff"}', b"[" * 200_000, b'{"a":' * 50_000, b"1" * 5000, b'{"text": "a"} x'],
    ids=lambda raw: ascii(raw[:12]),
)
def test_what_is_no_json_is_refused(server: Any, raw: bytes) -> None:
    answer = server.ask("/analyze_text", raw=raw)
    assert answer.status in (400, 422)
    assert answer.code in ("not_json", "missing_field", "wrong_type")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_content_type_is_refused(server: Any, kind: str) -> None:
    answer = server.ask("/analyze_text", {"text": "a"}, headers={"Content-Type": kind} if kind else {})
    assert (answer.status, answer.code) == (415, "wrong_content_type")


def test_json_with_a_charset_or_a_byte_order_mark_is_read(server: Any) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert server.ask("/analyze_text", raw=b'\xef\xbb\xbf{"text": "a"}', headers=headers).status == 200


def test_a_body_is_counted_as_it_comes(server: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(100):
            yield b"x" * 100_000

    for sent in (chunks(), b" " * 5_000_000):
        answer = server.ask("/analyze_text", raw=sent)
        assert (answer.status, answer.code) == (413, "body_too_large")
    assert server.ask("/analyze_text", raw=iter([b'{"text"', b': "a"}'])).status == 200


def test_other_addresses_and_methods_are_refused_in_the_same_shape(server: Any) -> None:
    missing, wrong = server.ask("/nothing"), server.ask("/analyze_text")
    assert (missing.status, missing.code, wrong.status, wrong.code) == (404, "not_found", 405, "wrong_method")
    assert wrong.headers["allow"] == "POST"


def test_nothing_above_ended_the_server(server: Any) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    assert server.process.poll() is None
    assert "Traceback" not in server.said


# Start and end


def test_sigterm_answers_what_is_open_and_ends_well(tmp_path: Path, serving: Any) -> None:
    def is_closed() -> bool:
        try:
            server.ask("/health")
        except OSError:
            return True
        return False

    with serving() as server:
        with holding(server, tmp_path / "held") as held:
            server.process.send_signal(signal.SIGTERM)
            eventually(is_closed)
        assert held.result().status == 200
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.said


def test_ctrl_c_ends_it_as_interrupted(serving: Any) -> None:
    with serving() as server:
        assert server.analyze("text").status == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130
        assert server.said.endswith("Error: Interrupted.\n")


def test_a_port_in_use_is_one_sentence(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", str(server.port)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"Error: Cannot listen on 127.0.0.1, port {server.port}: ")
    assert len(said) == 2


def test_a_missing_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--model", "missing.gguf"]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 2


def test_only_this_machine_can_ask_unless_told_otherwise(server: Any, serving: Any) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert "reaches" not in server.said
    with serving("--host", "0.0.0.0") as wide:
        assert wide.analyze("a").status == 200
        assert "Everybody who reaches this machine" in wide.said


def test_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(EmotionLRMError):
        check_extra()
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == 'Error: The server needs the package uvicorn.\npip install ".[serve]"\n'


def test_other_commands_do_not_load_the_server() -> None:
    script = "import sys; from toolkit.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    for arguments in (["--help"], ["--model", "missing.gguf", "some text"], ["serve", "--help"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        assert not {"fastapi", "uvicorn", "starlette"} & set(done.stderr.split())


# Keys, origins, privacy


def bearer(key: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_key_is_asked_for_and_never_told(tmp_path: Path, way: str, serving: Any) -> None:
    key = "a-very-secret-key"
    (tmp_path / "key").write_text(f"{key}\n")
    arguments = ["--api-key-file", str(tmp_path / "key")] if way == "file" else []
    environ = {"EMOTION_LRM_API_KEY": key if way == "environment" else "of the environment"}
    with serving("-v", *arguments, **environ) as server:
        for headers in (JSON, bearer("wrong"), bearer(key + "x"), bearer("ключ".encode().decode("latin-1"))):
            answer = server.ask("/analyze_text", {"text": "a"}, headers=headers)
            assert (answer.status, answer.code) == (401, "no_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.ask("/analyze_text", {"text": "a"}, headers=bearer(key)).status == 200
        assert server.ask("/labels", headers={}).status == 401
        assert [server.ask(path, headers={}).status for path in ("/health", "/ready", "/docs")] == [200] * 3
        assert server.ask("/openapi.json").json["paths"]["/labels"]["get"]["security"]
        server.process.terminate()
        server.process.wait(60)
        assert key not in server.said


def test_a_key_that_no_header_can_carry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert read_key({"EMOTION_LRM_API_KEY": ""}, None) is None
    for environ, file in (({"EMOTION_LRM_API_KEY": "two words"}, None), ({}, tmp_path / "empty")):
        with pytest.raises(UsageError):
            read_key(environ, file)


def test_web_pages_may_call_only_where_they_are_allowed(server: Any, serving: Any) -> None:
    asking = {**JSON, "Origin": "https://example.org"}
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}

    def allowed(running: Any) -> list[str | None]:
        answers: list[Any] = [
            running.ask("/analyze_text", {"text": "a"}, headers=asking),
            running.ask("/analyze_text", {"text": ""}, headers=asking),
            running.ask("/analyze_text", headers=preflight, method="OPTIONS"),
        ]
        return [answer.headers.get("access-control-allow-origin") for answer in answers]

    assert allowed(server) == [None] * 3
    with serving("--allow-origin", "https://example.org") as open_to_one:
        assert allowed(open_to_one) == ["https://example.org"] * 3


def test_no_text_is_logged(serving: Any) -> None:
    with serving("-v") as server:
        for text in ("my secret diary", "raise my secret diary", "abort my secret diary"):
            server.analyze(text)
            server.analyze(text, lens="my secret diary")
            server.ask("/analyze_batch", {"texts": [text], "my secret diary": 1})
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert "secret" not in server.said


# What the server says of itself


def test_labels_are_those_of_the_lenses(server: Any) -> None:
    found = server.ask("/labels").json
    assert (found["model"], found["lenses"], found["modes"]) == ("stand-in", ["author", "reader"], ["fast", "explain"])
    by_name = {taxonomy["name"]: taxonomy for taxonomy in found["taxonomies"]}
    assert list(by_name) == ["goemotions", "ekman", "sentiment", "shared10", "empathetic"]
    assert [label["name"] for label in by_name["ekman"]["labels"]] == list(load_taxonomy("ekman").labels)
    assert by_name["shared10"]["lenses"] == ["author", "reader"]


def test_the_docs_need_nothing_from_elsewhere(server: Any) -> None:
    answer = server.ask("/docs")
    page = answer.body.decode()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.findall(r"<(?:script|link|img|iframe)|@import|url\(", page)
    assert set(re.findall(r"https?://[^\s<\"']+", page)) <= {
        f"http://localhost:8000{path}" for path in server.ask("/openapi.json").json["paths"]
    }
    for path in ("/analyze_text", "/analyze_batch", "/labels", "/health", "/ready"):
        assert f" {path}</code>" in page


def test_the_server_reads_with_the_settings_it_was_given(serving: Any) -> None:
    with serving("--mode", "fast", "--taxonomy", "ekman", "--workers", "2") as server:
        found = server.analyze("text").json
        assert (found["mode"], found["taxonomy"]) == ("fast", "ekman")
        assert server.analyze("text", lens="reader").json["taxonomy"] == "empathetic"
