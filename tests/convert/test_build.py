"""Building survives rivals, kills, full disks and damage: the old file, or the new one, never anything between."""

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import convert.build
from convert.build import BuildResult, build_model, require_sealed
from convert.bundle import manifest_of_this_machine, write_bundle
from convert.errors import AdapterError, FileError, GGUFError
from convert.export import write_export
from convert.files import sha256_of
from convert.gguf_lora import adapter_to_gguf
from convert.header import check_header
from convert.hf_to_gguf import hf_to_gguf
from convert.merge import merge_adapter
from convert.quantize import quantize

BUILD = """
import json, sys, time
from convert.build import build_model
base, adapter, out, file_type = sys.argv[1:]
print("ready", flush=True)
result = build_model(base, adapter, out, file_type)
print(json.dumps({"built": result.built, "torch": bool({"torch", "transformers"} & set(sys.modules))}))
"""


def start_build(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILD, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: "subprocess.Popen[str]") -> dict[str, bool]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result: dict[str, bool] = json.loads(output.splitlines()[-1])
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_same_inputs_build_once_and_any_other_input_builds_anew(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path
) -> None:
    out = tmp_path / "cache" / "m.gguf"

    def build(file_type: str = "Q8_0", prompt: str = "a", template: str = "t") -> BuildResult:
        return build_model(tiny_gguf, tiny_adapter, out, file_type, {"prompt_hash": prompt}, template)

    assert build().built
    assert not build().built
    assert build(prompt="b").built
    assert build(prompt="b", template="u").built
    assert build("BF16", prompt="b", template="u").built
    assert check_header(out).metadata["emotion_lrm.prompt_hash"] == "b"
    require_sealed(out)
    assert names(out.parent) == {"m.gguf", ".m.gguf.lock"}


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q6_K", "IQ4_NL"])
def test_llama_cpps_own_types_are_built_too(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path, file_type: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.gguf"
    build_model(tiny_gguf, tiny_adapter, out, file_type, {"prompt_hash": "a"}, "t")
    metadata = check_header(out).metadata
    assert (metadata["emotion_lrm.file_type"], metadata["tokenizer.chat_template"]) == (file_type, "t")
    require_sealed(out)
    assert names(tmp_path) == {"m.gguf", ".m.gguf.lock"}
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_mixed_type_is_weighed_by_texts_and_they_belong_to_the_recipe(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path
) -> None:
    def build(name: str, texts: list[str], file_type: str = "Q4_0_MIXED") -> BuildResult:
        return build_model(tiny_gguf, tiny_adapter, tmp_path / name, file_type, texts=texts)

    plain, weighed = build("plain.gguf", []), build("weighed.gguf", ["abab", "!!ab??"])
    assert plain.path.read_bytes() != weighed.path.read_bytes()
    assert not build("weighed.gguf", ["abab", "!!ab??"]).built
    assert build("weighed.gguf", ["abab"]).built
    build("q8.gguf", ["abab"], "Q8_0")
    assert not build("q8.gguf", [], "Q8_0").built  # which rounds by the weights alone
    assert {name for name in names(tmp_path) if not name.endswith(".lock")} == {"plain.gguf", "q8.gguf", "weighed.gguf"}


def test_a_damaged_model_is_noticed_and_replaced(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    out = tmp_path / "m.gguf"
    build_model(tiny_gguf, tiny_adapter, out, "Q8_0")
    data = bytearray(out.read_bytes())
    out.write_bytes(data[: len(data) // 2])
    assert build_model(tiny_gguf, tiny_adapter, out, "Q8_0").built
    assert out.read_bytes() == data
    data[-40] ^= 1
    out.write_bytes(data)
    with pytest.raises(GGUFError, match="damaged"):
        require_sealed(out)


def test_what_a_dead_build_left_is_removed(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    out = tmp_path / "m.gguf"
    left = tmp_path / ".m.gguf.build"
    left.mkdir()
    (left / ".model.gguf.abc.partial").write_bytes(b"x" * 1000)
    build_model(tiny_gguf, tiny_adapter, out, "Q8_0")
    assert names(tmp_path) == {"m.gguf", ".m.gguf.lock"}


def test_too_little_space_and_a_wrong_base_leave_nothing(
    tmp_path: Path,
    tiny_gguf: Path,
    tiny_adapter: Path,
    write_tiny_gguf: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "cache" / "m.gguf"
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=5)
    with pytest.raises(AdapterError, match="another base"):
        build_model(other, tiny_adapter, out)
    assert not out.parent.exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(FileError, match="Not enough disk space"):
        build_model(tiny_gguf, tiny_adapter, out)
    assert names(out.parent) == {".m.gguf.lock"}


def test_a_disk_that_fills_up_half_way_leaves_the_old_file(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    """A real limit of the operating system on the size of files stands in for the full disk."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "m.gguf"
    build_model(tiny_gguf, tiny_adapter, out, "Q8_0")
    before = out.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))
    try:
        with pytest.raises(FileError):
            build_model(tiny_gguf, tiny_adapter, out, "F32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert out.read_bytes() == before
    assert names(tmp_path) == {"m.gguf", ".m.gguf.lock"}


def test_a_file_in_place_of_the_cache_folder_is_told(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(FileError) as caught:
        build_model(tiny_gguf, tiny_adapter, tmp_path / "cache" / "m.gguf")
    assert caught.value.hint


@pytest.mark.real
def test_two_builds_at_once_make_one_model_without_torch(tmp_path: Path, base_gguf: Path, base_adapter: Path) -> None:
    out = tmp_path / "m.gguf"
    rivals = [start_build(base_gguf, base_adapter, out, "Q8_0") for _ in range(3)]
    results = [outcome(rival) for rival in rivals]
    assert sorted(result["built"] for result in results) == [False, False, True]
    assert not any(result["torch"] for result in results)
    require_sealed(out)
    assert names(tmp_path) == {"m.gguf", ".m.gguf.lock"}


@pytest.mark.real
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_build_killed_at_any_moment_leaves_the_old_model_or_the_new(
    tmp_path: Path, base_gguf: Path, base_adapter: Path
) -> None:
    """Old and new differ in their file type, so each survivor shows which one it is; then a last build succeeds."""
    out = tmp_path / "m.gguf"
    build_model(base_gguf, base_adapter, out, "Q8_0")
    rng = random.Random(11)
    killed = 0
    for _ in range(8):
        before = out.read_bytes()
        now = check_header(out).metadata["emotion_lrm.file_type"]
        other = {"Q8_0": "Q4_0", "Q4_0": "Q8_0"}[now]
        process = start_build(base_gguf, base_adapter, out, other)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.2, 2.5))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        require_sealed(out)
        assert out.read_bytes() == before or check_header(out).metadata["emotion_lrm.file_type"] == other
    assert killed >= 2
    shutil.copy(out, tmp_path / "copy")
    build_model(base_gguf, base_adapter, out, "BF16")
    assert names(tmp_path) == {"m.gguf", ".m.gguf.lock", "copy"}


class Inputs(NamedTuple):
    """What the jobs below start from: a model folder, a GGUF of floats, and an adapter for it."""

    folder: Path
    floats: Path
    adapter: Path


MANIFEST = manifest_of_this_machine("0", "m.gguf")
Call = tuple[Any, ...]
JOBS: dict[str, tuple[tuple[str, str], Callable[[Inputs, Path, str], Call]]] = {
    "gguf": (("F32", "F16"), lambda given, out, kind: (hf_to_gguf, given.folder, out, kind)),
    "GGUF-LoRA": (("F32", "F16"), lambda given, out, kind: (adapter_to_gguf, given.floats, given.adapter, out, kind)),
    "merge": (("F32", "BF16"), lambda given, out, kind: (merge_adapter, given.floats, given.adapter, out, kind)),
    "quantize": (("Q8_0", "Q4_0"), lambda given, out, kind: (quantize, given.floats, out, kind)),
    "quantize in llama.cpp": (("Q4_K_M", "Q6_K"), lambda given, out, kind: (quantize, given.floats, out, kind)),
    "export": (("one", "other"), lambda given, out, kind: (write_export, out, given.floats, kind, "template", {})),
    "bundle": (("one", "other"), lambda given, out, kind: (write_bundle, out, MANIFEST, [], given.floats, {"a": kind})),
}
"""Two things that each job can make, which differ, and how it is called to make one of them."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, make_family: Callable[..., Path]) -> Path:
    return make_family(tmp_path_factory.mktemp("folder") / "tiny", "smollm")


def start_job(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Call a function in a process that is forked from one in which everything is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["convert.build", "convert.bundle", "convert.export", "convert.gguf_lora",
                                    "convert.hf_to_gguf", "llama_cpp", "tokenizers"])  # fmt: skip
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def content_of(path: Path) -> dict[str, str]:
    """The SHA-256 of a file, or of every file in a folder, by name; nothing where nothing is."""
    files = [path, *path.rglob("*")]
    return {file.relative_to(path.parent).as_posix(): sha256_of(file) for file in files if file.is_file()}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("name", JOBS)
def test_a_job_killed_at_any_moment_leaves_what_was_there_or_all_that_it_makes(
    tmp_path: Path, model_folder: Path, tiny_gguf: Path, tiny_adapter: Path, name: str
) -> None:
    kinds, call = JOBS[name]
    given, out = Inputs(model_folder, tiny_gguf, tiny_adapter), tmp_path / "out"

    def start(kind: str) -> BaseProcess:
        if out.is_dir():
            shutil.rmtree(out)  # an export wants a new folder
        return start_job(*call(given, out, kind))

    def finish(kind: str) -> dict[str, str]:
        process = start(kind)
        process.join(60)
        assert process.exitcode == 0
        return content_of(out)

    made, seconds = {}, 0.0
    for kind in kinds:
        began = time.monotonic()
        made[kind] = finish(kind)
        seconds = time.monotonic() - began
    rng, killed = random.Random(name), 0
    for kind in kinds * 3:
        before = content_of(out) if out.is_file() else {}
        process = start(kind)
        time.sleep(rng.uniform(0, seconds))
        killed += process.is_alive()
        process.kill()
        process.join()
        assert content_of(out) in (before, made[kind])
    assert killed
    assert finish(kinds[0]) == made[kinds[0]] != made[kinds[1]]


def test_the_recipe_has_a_version() -> None:
    assert convert.build._RECIPE_VERSION >= 1
