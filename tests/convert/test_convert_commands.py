"""The commands: what they print where, and that listing them loads nothing heavy."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from convert.commands import convert
from convert.errors import ConvertError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(convert, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_build_quantize_and_verify(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    merged, small, built = (tmp_path / name for name in ("m.gguf", "q.gguf", "b.gguf"))
    assert run("merge", "--base", tiny_gguf, "--adapter", tiny_adapter, "-o", merged) == f"{merged}\n"
    report = json.loads(run("quantize", merged, "-o", small, "-t", "q8_0", "--json"))
    assert report["file_type"] == "Q8_0"
    assert "8.61 bits per weight" in run("quantize", merged, "-o", small, "-t", "q8_0")
    assert str(built) in run("build", "--base", tiny_gguf, "--adapter", tiny_adapter, "-o", built, "-t", "BF16")
    answer = json.loads(run("verify", small, "--base", tiny_gguf, "--reference", merged, "--json"))
    assert answer["passed"] is True
    assert "FAILED" not in run("verify", built)


def test_a_failed_check_is_exit_code_1(tiny_gguf: Path) -> None:
    result = CliRunner().invoke(convert, ["verify", str(tiny_gguf), "--prompt-hash", "x"])
    assert result.exit_code == 1
    assert "FAILED  prompt" in result.stdout


def test_folders_become_gguf(
    tmp_path: Path, make_family: Callable[..., Path], tiny_gguf: Path, tiny_adapter: Path
) -> None:
    folder = make_family(tmp_path / "tiny", "qwen2")
    run("gguf", folder, "-o", tmp_path / "m.gguf", "-t", "Q8_0")
    run("gguf", tiny_adapter, "--base", tiny_gguf, "-o", tmp_path / "lora.gguf")
    assert {path.name for path in tmp_path.glob("*.gguf")} == {"m.gguf", "lora.gguf"}


def test_wrong_usage_and_expected_failures(tmp_path: Path, tiny_adapter: Path) -> None:
    for arguments in (["gguf", str(tiny_adapter), "-o", "x"], ["merge", "-o", "x"], ["quantize", "missing"]):
        assert CliRunner().invoke(convert, arguments, env={"EMOTION_LRM_BASE": None}).exit_code == 2
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    result = CliRunner().invoke(convert, ["quantize", str(bad), "-o", str(tmp_path / "x"), "-t", "Q8_0"])
    assert isinstance(result.exception, ConvertError)


def loaded_by(imports: str, suspects: tuple[str, ...]) -> str:
    code = f"import sys, {imports}\nprint([name for name in {suspects!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["build", "verify", "hf_to_gguf", "gguf_lora", "quantize", "merge_hf", "commands"])
def test_importing_loads_no_torch(module: str) -> None:
    heavy = ("torch", "transformers", "peft", "tokenizers", "llama_cpp", "toolkit")
    assert loaded_by(f"convert.{module}", heavy) == "[]"


def test_the_commands_load_no_numpy_until_called() -> None:
    assert loaded_by("convert.commands, convert.header", ("numpy", "gguf")) == "[]"
