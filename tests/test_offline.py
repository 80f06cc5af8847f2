"""From a fresh cache to a reading and to figures without a network: nothing but the installed packages is needed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from toolkit.cli import main
from toolkit.contract.taxonomy import load_taxonomy

from .apps.test_ui import LOOPBACK_ONLY
from .doors.tiny import write_tiny

TEXT = "I feel disappointed and ignored..."
LABELS = load_taxonomy("goemotions").labels

# A hook in the interpreter, so that it also sees what bypasses the module socket; it runs before any import of ours.
WITHOUT_NETWORK = """
import sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        sys.stderr.write(f"NETWORK: {event} {args}")
        raise SystemExit(99)

sys.addaudithook(refuse)
from toolkit.cli import main
sys.exit(main(sys.argv[1:]))
"""

# The same for what reads in a worker process, whose standard error nobody sees: every Python writes its own file.
WATCHED = f"""
import os
log = open(f"{{__file__}}.{{os.getpid()}}", "w", buffering=1)
{LOOPBACK_ONLY.replace("sys.stderr", "log")}
"""


@pytest.mark.real
def test_first_analysis_builds_the_model_without_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, "--json", TEXT],
        capture_output=True,
        text=True,
        env={**os.environ, "EMOTION_LRM_CACHE": str(tmp_path)},
    )
    assert (done.returncode, "NETWORK" in done.stderr) == (0, False), done.stderr
    reading = json.loads(done.stdout)
    assert reading["text"] == TEXT
    assert reading["emotion"] in LABELS
    assert reading["reasoning"]
    built = [path.name for path in (tmp_path / "models").glob("*.gguf")]
    assert built == [f"{reading['model']}.gguf"]


@pytest.mark.real
@pytest.mark.usefixtures("offline")
def test_panel_is_printed_without_network(default_model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(default_model_path), TEXT]) == 0
    printed = capsys.readouterr()
    assert any(label.upper() in printed.out for label in LABELS) or "NO CLEAR EMOTION" in printed.out
    assert "disappointed" in printed.out


@pytest.mark.real
@pytest.mark.usefixtures("offline")
def test_a_local_file_is_evaluated_without_network(
    default_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,emotion\nThank you so much!,gratitude\nI am furious with you.,anger\n", encoding="utf-8")
    assert main(["evaluate", str(rows), "--model", str(default_model_path), "--mode", "fast", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["n"] == 2
    assert 0 <= figures["accuracy"] <= 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


Attempts = Callable[[], list[str]]


@pytest.fixture
def attempts(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    """What each Python that was started tried to reach but this machine. It was refused; the model is ``tiny``."""
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(WATCHED, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.parent), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("EMOTION_LRM_MODEL", str(tiny))
    monkeypatch.setenv("EMOTION_LRM_THREADS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE")  # nobody is told to stay away from the network
    return lambda: [log.read_text(encoding="utf-8") for log in site.parent.glob("*.py.*")]


def test_an_attempt_is_seen_however_deep(attempts: Attempts) -> None:
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    start = "import subprocess as s, sys; s.run([sys.executable, '-c', sys.argv[1]], stderr=s.DEVNULL)"
    subprocess.run([sys.executable, "-c", start, reach], check=True)
    assert sorted(log.count("NETWORK") for log in attempts()) == [0, 1]


@pytest.mark.parametrize("command", [["batch", "-", "-o", "o.jsonl"], ["chat"]], ids=lambda command: command[0])
def test_files_and_chats_are_read_without_network(attempts: Attempts, tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *command],
        input=f"{TEXT}\nWhat a day!\n", cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert attempts() == ["", ""]  # the command and its worker


def test_programs_are_answered_without_network(attempts: Attempts) -> None:
    command = [sys.executable, "-m", "toolkit.cli", "serve", "--port", "0", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            server = HTTPConnection(process.stdout.readline().strip().removeprefix("http://"), timeout=60)
            server.request("POST", "/analyze_text", json.dumps({"text": TEXT}), {"Content-Type": "application/json"})
            assert json.load(server.getresponse())["emotion"] in LABELS
            server.request("GET", "/docs")
            assert b"/analyze_text" in server.getresponse().read()
            server.close()
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert attempts() == ["", ""]


def test_the_block_refuses_and_records(offline: list[str]) -> None:
    with pytest.raises(OSError, match="offline test"):
        socket.create_connection(("localhost", 9), timeout=1)
    with socket.socket() as tcp, pytest.raises(OSError, match="offline test"):
        tcp.connect(("127.0.0.1", 9))
    assert offline == ["localhost", "('127.0.0.1', 9)"]
    offline.clear()  # here the attempts were meant


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local sockets")
@pytest.mark.usefixtures("offline")
def test_the_block_leaves_local_sockets_open() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"x")
        assert there.recv(1) == b"x"
