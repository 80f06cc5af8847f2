"""From a fresh cache to a reading and to figures without a network: nothing but the installed packages is needed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import main
from toolkit.contract.taxonomy import load_taxonomy

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
