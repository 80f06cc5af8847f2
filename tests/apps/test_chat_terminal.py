"""The chat on a real terminal of sixty columns: the reasoning grows, Ctrl-C stops it, Ctrl-D leaves, without colour."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolkit.apps.escape import visible

pytestmark = pytest.mark.skipif(not shutil.which("setsid"), reason="a terminal of its own needs setsid")
STAND_IN = str(Path(__file__).parents[1] / "inference")
# The worker's model is the stand-in that does what its texts say; everything else is what a user gets.
CHAT = f"""
import sys
sys.path.insert(0, {STAND_IN!r})
from toolkit.inference import supervisor
supervisor.ENTRY = "stand_in:main"
from toolkit.cli import main
sys.exit(main(["chat", *sys.argv[1:]]))
"""


@dataclass
class Terminal:
    """What a person at the terminal does and sees."""

    descriptor: int
    process: subprocess.Popen[bytes]
    shown: str = ""
    everything: str = ""

    def wait_for(self, pattern: str, seconds: float = 60.0) -> None:
        """Read on until the screen has shown it; what came before is forgotten."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < end, f"{pattern} did not come: {self.shown!r}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                came = os.read(self.descriptor, 4096).decode(errors="replace")
                self.shown += came
                self.everything += came
        self.shown = self.shown[found.end() :]

    def wait_for_prompt(self) -> None:
        """Read on until keys go to the editor, not to the terminal's own line discipline."""
        self.wait_for(r"\?2004h")  # it asks for pastes to be marked

    def ended(self) -> int:
        """Read on until the chat has ended; its exit code."""
        with contextlib.suppress(OSError):  # what Linux says where nobody has the other end open
            self.wait_for("never shown")
        return self.process.wait(60)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.descriptor, keys.encode())


@contextmanager
def chat(*arguments: str) -> Iterator[Terminal]:
    """A chat on a terminal of sixty columns that shows no colours."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
    command = ["setsid", "--ctty", "--wait", sys.executable, "-c", CHAT, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            os.close(ours)


def test_a_reasoning_grows_is_stopped_and_the_chat_goes_on() -> None:
    with chat("--model", "any", "--lens", "both") as terminal:
        terminal.wait_for("Ctrl-D ends")
        terminal.wait_for_prompt()
        terminal.type("slowly\r")
        terminal.wait_for("│ Read  ")  # the first word of three
        terminal.type("\x03")
        terminal.wait_for("Stopped")
        terminal.type("typed ahead of the prompt\r")
        terminal.wait_for(r"stand-in · author lens · goemotions")
        terminal.wait_for(r"stand-in · reader lens · empathetic +│")
        terminal.wait_for(r"cannot\s+be compared|part by|do not part")
        terminal.wait_for_prompt()
        terminal.type("\x04")
        assert terminal.ended() == 0


def test_nothing_is_wider_than_the_terminal_or_coloured() -> None:
    with chat("--model", "any") as terminal:
        terminal.wait_for_prompt()
        terminal.type("\x1b[200~a pasted line\nand another [red]one[/red]\x1b[201~\r")
        for part in ("╭─{58}╮", "Read with 1 by", "╰─{58}╯"):
            terminal.wait_for(part)
        terminal.type("/quit\r")
        assert terminal.ended() == 0
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.everything)


def test_what_is_pasted_is_shown_and_does_nothing_else() -> None:
    first, second = "\x1b[31mred\x1b]0;title\x07 \x9b2J a\x00b \u202eend", "of two lines"
    with chat("--model", "any") as terminal:
        terminal.wait_for_prompt()
        terminal.type(f"\x1b[200~{first}\n{second}\x1b[201~\r")
        terminal.wait_for(re.escape(visible(first)))  # as it is typed
        terminal.wait_for(rf"│ {re.escape(visible(first))} +│")
        terminal.wait_for(f"│ {second} +│")
        terminal.type("/quit\r")
        assert terminal.ended() == 0
    assert not set("\x00\x07\x9b\u202e") & set(terminal.everything)
    assert not re.search(r"\x1b(\]|\[31m)", terminal.everything)
