"""The completion scripts at work: a real shell on a terminal, the tab key pressed, its answer read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.shell_completion import ShellComplete

from toolkit.apps.completion import SHELLS, script
from toolkit.cli import COMMANDS, cli, main

START = {"bash": "--norc --noprofile", "zsh": "--no-rcs", "fish": "--no-config"}
TEACH = {
    "bash": 'eval "$(emotion-lrm completion bash)"',
    "zsh": 'autoload -U compinit && compinit -u; eval "$(emotion-lrm completion zsh)"',
    "fish": "emotion-lrm completion fish | source",
}


@pytest.fixture(params=[shell for shell in SHELLS if shell == "bash" or shutil.which(shell)])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A shell on a terminal, in a folder with one file; it has learned to complete emotion-lrm."""
    (tmp_path / "comments_of_may.csv").write_text("text\nWhat a day!\n", encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "TERM": "xterm", "HOME": str(tmp_path)}
    shell = request.param
    opened = pexpect.spawn(
        shell, START[shell].split(), cwd=tmp_path, env=environ, dimensions=(40, 160), timeout=120, encoding="utf-8"
    )
    opened.sendline(TEACH[shell])
    opened.sendline("echo re''ady")
    opened.expect("ready")
    yield opened
    opened.close(force=True)


def test_the_tab_key_completes_commands_options_values_and_files(terminal: Any) -> None:
    terminal.send("emotion-lrm eva\t")
    terminal.expect("luate")
    terminal.send("my.csv --taxo\t")
    terminal.expect("nomy")
    terminal.send("senti\t")
    terminal.expect("ment")
    terminal.send("\x15emotion-lrm batch comm\t")
    terminal.expect("ents_of_may.csv")


def candidates(*words: str) -> list[str]:
    """What a shell is offered for the last of ``words``."""
    *before, last = words
    return [item.value for item in ShellComplete(cli, {}, "emotion-lrm", "_X").get_completions(before, last)]


def test_every_command_is_offered() -> None:
    assert set(COMMANDS) <= set(candidates(""))
    assert {"merge", "gguf", "quantize", "verify", "build", "export", "bundle"} <= set(candidates("convert", ""))
    assert candidates("evaluate", "--compare", "x", "g", "--split", "d") == ["dev"]


def test_a_text_without_quotation_marks_is_no_error_while_it_is_typed() -> None:
    assert "--mode" in candidates("I feel ignored", "--m")
    assert "--mode" in candidates("I", "feel", "--m")
    assert "--mode" in candidates("evalute", "--m")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell) + "\n"
    assert "emotion-lrm" in script(shell)


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


def test_the_answer_to_the_shell_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_EMOTION_LRM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "emotion-lrm doc")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = subprocess.run([sys.executable, "-m", "toolkit.cli"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "plain,doctor\n")
