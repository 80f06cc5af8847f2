"""The teacher behind a true llama.cpp server on loopback, with the base model that the tests carry."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from toolkit.base import find_base_gguf, load_base
from toolkit.contract.example import Example
from toolkit.corpora.answers import AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.open_teacher import open_teacher
from toolkit.corpora.teachers import Ask, TeacherError

KEY = "EMOTION_LRM_TEACHER_KEY"
CONFIG = AskConfig(max_tokens=60, concurrency=2, timeout=300, retries=1)
ASKS = [Ask(Example(text, ("gratitude",))) for text in ("Thank you for the lift home.", "Thanks for all your help!")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of llama-cpp-python's server, which wants the key ``right``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(find_base_gguf(load_base("smollm2-135m")))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024", "--n_threads", "1", "--api_key", "right"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            _wait(process, f"http://127.0.0.1:{port}/v1/models", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            httpx.get(url)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the server did not come up: {log.read_text(errors='replace')}")


def test_a_true_server_is_asked_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "right")
    answers = tmp_path / "answers.jsonl"
    rounds = []
    for _ in range(2):
        with open_teacher(server, CONFIG, answers) as teacher_for:
            teacher = teacher_for(None)  # type: ignore[arg-type]
            rounds.append((list(teacher.write_all(ASKS)), teacher.usage()))
    (first, paid), (second, free) = rounds
    assert first == second
    assert paid["asked"] == free["known"] == 2
    assert paid["tokens"] > 400
    assert free["tokens"] == 0
    rows = [json.loads(line) for line in answers.read_text(encoding="ascii").splitlines()]
    assert all(row["content"].lstrip().startswith("{") for row in rows)  # the server held the model to JSON
    with AnswerStore(answers) as store:
        assert len(store) == 2


def test_a_true_server_refuses_a_wrong_key(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "wrong")
    refused = pytest.raises(TeacherError, match="refuses the key")
    with refused, open_teacher(server, CONFIG, tmp_path / "answers.jsonl"):
        pass
