"""Doctor: healthy where all is well, and every kind of trouble found, named and survived."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from toolkit.apps import checks
from toolkit.apps.checks import Check, Files, ask, available_memory, ending, examine, native, refused
from toolkit.apps.doctor import worst
from toolkit.cli import main
from toolkit.errors import ModelError
from toolkit.inference.probe import compare_flags

NAMES = [
    "python", "packages", "settings", "base", "model", "threads", "memory", "disk", "cache folder", "config folder",
    "offline", "cpu", "abi", "kernel", "tokenizer", "self-test",
]  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code is not asked."""
    monkeypatch.setattr(checks, "native", lambda *_: iter(()))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(folder))
    return folder


def run(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], dict[str, Check]]:
    """Exit code, the object that was printed, and its checks by name."""
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    return code, told, {check["name"]: Check(**check) for check in told["checks"]}


@pytest.mark.usefixtures("default_model_path", "offline")
def test_a_healthy_installation(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, found = run(capsys)
    assert code == 0
    assert list(told) == ["status", "checks"]
    assert list(found) == NAMES
    busy = {"threads", "memory", "disk"}  # these depend on what else the machine does
    assert {name for name, check in found.items() if check.status != "ok"} <= busy, found
    assert "content as built" in found["model"].detail
    assert "57 hard texts" in found["tokenizer"].detail


@pytest.mark.usefixtures("quick", "empty_cache")
def test_a_model_that_is_not_built_yet_is_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, told, found = run(capsys)
    assert (code, told["status"], found["model"].status) == (0, "warning", "warning")
    assert "not built yet" in found["model"].detail
    assert list(tmp_path.rglob("*")) == [], "doctor changes nothing"


@pytest.mark.usefixtures("quick", "empty_cache")
def test_the_base_is_that_of_the_model_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMOTION_LRM_MODEL", "emotion-gemma-3-270m-told")
    code, _, found = run(capsys)
    assert found["base"].detail == "google/gemma-3-270m, 253 MB, SHA-256 as published"
    assert (code, found["model"].status) == (0, "warning")
    assert list(tmp_path.rglob("*")) == [], "doctor joins no parts"


@pytest.mark.usefixtures("quick", "empty_cache")
def test_neither_model_nor_base_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMOTION_LRM_BASE", str(tmp_path / "missing.gguf"))
    code, told, found = run(capsys)
    assert (code, told["status"]) == (1, "broken")
    assert (found["base"].status, found["model"].status) == ("warning", "broken")
    assert "missing.gguf" in found["base"].detail


@pytest.mark.usefixtures("quick")
def test_another_base_is_found_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    monkeypatch.setenv("EMOTION_LRM_BASE", str(other))
    code, _, found = run(capsys)
    assert code == 1
    assert "SHA-256" in found["base"].detail


@pytest.mark.usefixtures("quick")
def test_one_changed_bit_in_the_model_is_found(
    capsys: pytest.CaptureFixture[str], default_model_path: Path, empty_cache: Path
) -> None:
    copy = empty_cache / "models" / default_model_path.name
    copy.parent.mkdir(parents=True)
    shutil.copyfile(default_model_path, copy)
    with open(copy, "r+b") as file:
        file.seek(-5000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    code, told, found = run(capsys)
    assert (code, told["status"], found["model"].status) == (1, "broken", "broken")
    assert "damaged" in found["model"].detail


@pytest.mark.usefixtures("quick")
def test_broken_settings_are_named_and_the_rest_is_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTION_LRM_THREADS", "many")
    code, _, found = run(capsys)
    assert (code, found["settings"].status) == (1, "broken")
    assert "EMOTION_LRM_THREADS" in found["settings"].detail
    assert found["python"].status == "ok"
    assert list(found) == NAMES[:-5]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PACKAGES", ("click", "no-such-package-anywhere"))
    status, detail = checks.package_versions()
    assert status == "broken"
    assert "pip install no-such-package-anywhere" in detail


@pytest.mark.usefixtures("quick", "empty_cache")
def test_lines_in_a_pipe_and_a_table_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines[:2]] == ["ok", "ok"]
    assert len(lines) == len(NAMES) - 5 + 1
    assert lines[-1].startswith("warning: ")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "what was found" in printed
    assert "\x1b[" in printed


# Native code in a process of its own


def command(code: str) -> Callable[..., list[str]]:
    return lambda *_: [sys.executable, "-c", code]


ANSWER = """print('{"name": "cpu", "status": "ok", "detail": "fine"}', flush=True)\n"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ANSWER + "import os; os.abort()", "died of SIGABRT"),
        (ANSWER + "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "built for another processor"),
        (ANSWER + "raise SystemExit('no llama here')", "exit code 1: no llama here"),
        (ANSWER + "import time; time.sleep(600)", "no answer within 2 s"),
    ],
)
def test_native_code_that_dies_or_hangs_is_broken(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    monkeypatch.setattr("toolkit.inference.boot.python_command", command(code))
    monkeypatch.setattr(checks, "PATIENCE", 2.0)
    found = list(native(Path("model.gguf"), None))
    assert [(c.name, c.status) for c in found if c.status == "ok"] in ([("cpu", "ok")], [])
    broken = [check for check in found if check.status == "broken"]
    assert said in broken[0].detail
    assert sorted(check.name for check in found) == sorted(checks.NATIVE)


def test_without_any_model_only_the_library_is_asked() -> None:
    found = list(native(None, None))
    assert [check.name for check in found] == ["cpu", "abi", "kernel"]
    assert {check.status for check in found} <= {"ok", "warning"}


@pytest.mark.parametrize(
    ("built", "cpu", "status", "named"),
    [
        ({"AVX2", "FMA"}, {"avx2", "fma"}, "ok", "AVX2"),
        ({"AVX2"}, {"avx2", "avx512_bf16", "avx512f"}, "warning", "AVX512_BF16"),
        ({"AVX2", "AVX512"}, {"avx2"}, "broken", "AVX512"),
        ({"NEON", "DOTPROD"}, set(), "ok", "NEON"),
    ],
)
def test_build_flags_against_the_processor(built: set[str], cpu: set[str], status: str, named: str) -> None:
    found = compare_flags(frozenset(built), frozenset(cpu))
    assert found[0] == status
    assert named in found[1]


# Single questions


def test_a_question_that_fails_is_broken() -> None:
    def fails() -> tuple[str, str]:
        raise ModelError("No model.", "Build it.")

    assert ask("model", fails) == Check("model", "broken", "No model. Build it.")
    assert ask("sum", lambda: 1 / 0) == Check("sum", "broken", "ZeroDivisionError: division by zero")  # type: ignore[arg-type,return-value]


def test_the_worst_check_gives_the_status() -> None:
    def made(*statuses: str) -> list[Check]:
        return [Check("x", status, "") for status in statuses]

    assert worst(made("ok", "ok")) == "ok"
    assert worst(made("ok", "warning", "ok")) == "warning"
    assert worst(made("broken", "warning")) == "broken"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(tmp_path / "not" / "there" / "yet") is None
    assert list(tmp_path.iterdir()) == []
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(in_the_way))
    status, detail = checks.cache_folder(built=False)
    assert status == "broken"
    assert str(in_the_way) in detail
    assert checks.cache_folder(built=True)[0] == "warning"


def test_little_memory_and_disk_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 100_000_000)
    assert checks.memory([])[0] == "warning"
    monkeypatch.setattr(checks, "available_memory", lambda: None)
    assert checks.memory([])[0] == "ok"
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    assert (checks.disk(built=False)[0], checks.disk(built=True)[0]) == ("broken", "warning")


def test_memory_is_measured() -> None:
    available = available_memory()
    assert available is None or 0 < available < 1 << 50


def test_busy_processors_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    status, detail = checks.threads()
    assert status == "warning"
    assert "load 1000.0" in detail
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert checks.threads()[0] == "ok"


def test_hub_variables_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in checks.HUB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert "may be asked" in checks.offline()[1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE=1" in checks.offline()[1]


def test_a_model_file_that_is_named_but_missing_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_LRM_MODEL", str(tmp_path / "missing.gguf"))
    files = Files()
    checks.settings(files)
    found = ask("model", lambda: checks.model_file(files))
    assert found.status == "broken"
    assert "missing.gguf" in found.detail


def test_an_answer_of_another_form_is_passed_over_and_a_process_that_cannot_start_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = json.dumps({"name": "cpu", "status": "ok", "detail": "fine"})
    said = f'ggml: {{x}}\n{{"name": "abi"}}\n{good}\n'
    monkeypatch.setattr(checks, "asked_natively", lambda *_: (said, "llama.cpp died of SIGKILL"))
    assert [(one.name, one.status) for one in native(None, None)] == [
        ("cpu", "ok"), ("abi", "broken"), ("kernel", "broken"),
    ]  # fmt: skip
    monkeypatch.setattr(checks, "asked_natively", Mock(side_effect=OSError("no processes left")))
    first, second, _ = native(None, None)
    assert first == Check("cpu", "broken", "OSError: no processes left")
    assert second.detail == "not reached"


def test_files_that_the_system_keeps_in_memory_count_as_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, told in (("max", "600000"), ("current", "500000"), ("stat", "anon 90000\ninactive_file 400000\n")):
        (tmp_path / f"memory.{name}").write_text(told)
    monkeypatch.setattr(checks, "CONTROL_GROUP", tmp_path)
    assert available_memory() in (500_000, None)  # None where the system has no /proc/meminfo


def test_how_a_process_ended() -> None:
    assert ending(-99, "") == "died of signal 99"
    assert ending(-9, "") == "died of SIGKILL"
    assert ending(3, "first\nlast\n") == "ended with exit code 3: last"


def test_examining_is_lazy_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "sys", None)
    first = next(examine())
    assert (first.name, first.status) == ("python", "broken")
