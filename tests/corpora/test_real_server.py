"""The teacher behind a true llama.cpp server on loopback: llama-server where there is one, else llama-cpp-python's."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.corpora.conftest import small_corpus
from tests.corpora.misbehaving import Reply, Script, failure, serving
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.answers import AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.commands import data
from toolkit.corpora.open_teacher import open_teacher
from toolkit.corpora.teachers import Ask, TeacherError

KEY = "EMOTION_LRM_TEACHER_KEY"
FOUR = ("0-0", "0-1", "1-0", "1-1")  # of the patterns and objects of the small corpus
CONFIG = AskConfig(max_tokens=60, concurrency=2, timeout=300, retries=1)
ASKS = [Ask(Example(text, ("gratitude",))) for text in ("Thank you for the lift home.", "Thanks for all your help!")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server, which wants the key ``right``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = _command(find_base_gguf(load_base("smollm2-135m")), port)
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            _wait(process, f"http://127.0.0.1:{port}/v1/models", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def _command(model: Path, port: int) -> list[str]:
    """The command line of the server that this machine has, with two places where it knows such."""
    where = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    binary = shutil.which("llama-server") or shutil.which("llama-server", path=str(Path(sys.executable).parent))
    if binary is not None:
        return [binary, *where, "-c", "2048", "-np", "2", "-t", "1", "--api-key", "right"]
    options = ["--n_ctx", "1024", "--n_threads", "1", "--api_key", "right"]
    return [sys.executable, "-m", "llama_cpp.server", *where, *options]


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, headers={"Authorization": "Bearer right"}).status_code == 200:  # 503 while it loads
                return
        time.sleep(0.2)
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


class Road:
    """The way to the true server: hands every request on, and notes when it began and how many are under way."""

    def __init__(self, server: str) -> None:
        self.server, self.under_way, self.most, self.begun = server, 0, 0, list[float]()
        self.lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Reply:
        with self.lock:
            self.begun.append(time.monotonic())
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            headers = {"Authorization": "Bearer right"}
            answer = httpx.post(f"{self.server}/chat/completions", json=body, headers=headers, timeout=300)
            return answer.status_code, {}, answer.content
        finally:
            with self.lock:
                self.under_way -= 1


COT = """
cot:
  per_label: 2
  caps: {}
  val_per_label: 0
  attempts: 1
  ask: {max_tokens: 60, concurrency: 2, per_minute: 600, backoff: 0.01, timeout: 300}
"""


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """A corpora folder of four texts for each of three labels: few, for a true model takes its time."""
    folder = tmp_path / "corpora" / "goemotions"
    folder.mkdir(parents=True)
    labels = load_taxonomy("goemotions").labels
    wanted = [e for e in small_corpus() if e.labels[0] in ("gratitude", "anger", "neutral") and e.id[-3:] in FOUR]
    rows = [f"{e.text}\t{labels.index(e.labels[0])}\t{e.id}\n" for e in wanted]
    (folder / "train.tsv").write_text("".join(rows), encoding="utf-8")
    return folder.parent


def test_a_whole_run_through_a_true_server_survives_failures_and_is_not_paid_for_twice(
    server: str, twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "right")
    (tmp_path / "cot.yaml").write_text(COT, encoding="utf-8")
    out, road = tmp_path / "out", Road(server)
    reports, files = [], []
    with serving(Script(replies=[failure(429, retry_after="0"), failure(503), None], answer=road)) as script:
        arguments = ["cot", "--source", str(twelve), "--out", str(out), "--config", str(tmp_path / "cot.yaml")]
        for _ in range(2):
            result = CliRunner().invoke(data, [*arguments, "--teacher", script.url], catch_exceptions=False)
            assert result.exit_code == 0, result.output
            reports.append(json.loads((out / "goemotions_cot_report.json").read_text(encoding="utf-8"))["train"])
            files.append(
                [(out / f"goemotions_cot_{kind}.jsonl").read_bytes() for kind in ("train", "refused", "answers")]
            )
    first, second = reports
    asked = first["usage"]["asked"]
    assert asked == len(road.begun) == first["written"] + sum(first["refused_chains"].values()) >= 6
    assert (first["usage"]["retried"], first["usage"]["known"]) == (3, 0)
    assert first["usage"]["tokens"] > 150 * asked
    assert road.most == 2
    gaps = sorted(road.begun)
    assert gaps[-1] - gaps[0] > 0.1 * (asked - 4)  # a tenth of a second lies between two beginnings
    assert second["usage"] == {"asked": 0, "retried": 0, "known": asked, "tokens": 0}
    assert files[0] == files[1]
