"""What is handed out: the wheel holds the whole house, the sdist can build it, and neither tells where it was made."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import toolkit
from toolkit.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("toolkit", "convert")
SHIPPED_FOLDERS = ("prompts", "data/samples", "data/configs", "models/configs", "models/adapters")


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an sdist or a wheel of ``source`` with the build backend of this environment."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the wheel and its content."""
    return contents(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def files(folder: Path) -> Iterator[Path]:
    """The files below ``folder`` less what Python and editors leave behind."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            yield path


def house() -> dict[str, Path]:
    """Where every file of the tree that must be in the wheel belongs there."""
    code = {path.relative_to(ROOT).as_posix(): path for name in PACKAGES for path in files(ROOT / name)}
    shipped = (path for name in SHIPPED_FOLDERS for path in files(ROOT / name))
    return code | {f"toolkit/_assets/{path.relative_to(ROOT).as_posix()}": path for path in shipped}


def test_wheel_holds_exactly_the_house(wheel: dict[str, bytes]) -> None:
    expected = house()
    found = {name for name in wheel if ".dist-info/" not in name}
    assert sorted(found) == sorted(expected)
    changed = [name for name, path in expected.items() if wheel[name] != path.read_bytes()]
    assert not changed
    assert {f"{package}/py.typed" for package in PACKAGES} <= found


def test_wheel_holds_every_kind_of_shipped_file(wheel: dict[str, bytes]) -> None:
    assets = {name.removeprefix("toolkit/_assets/") for name in wheel if name.startswith("toolkit/_assets/")}
    assert {"prompts/prompt.yaml", "data/samples/bench_300.jsonl", "models/configs/shipped.yaml"} <= assets
    adapter = "models/adapters/author/adapter_model.safetensors"
    assert len(wheel[f"toolkit/_assets/{adapter}"]) > 1_000_000


def test_every_adapter_names_its_licence(wheel: dict[str, bytes]) -> None:
    shipped = yaml.safe_load((ROOT / "models" / "configs" / "shipped.yaml").read_text(encoding="utf-8"))["models"]
    assert {model["adapter"] for model in shipped.values()} == {
        path.name for path in (ROOT / "models" / "adapters").iterdir() if path.is_dir()
    }
    for model in shipped.values():
        told = wheel[f"toolkit/_assets/models/adapters/{model['adapter']}/LICENSE"].decode()
        assert told.splitlines()[0] == model["licence"]
        assert all(name in told for name in model["datasets"])
        assert ("https://creativecommons.org/licenses/by-nc/4.0/" in told) is ("NC" in model["licence"])
    for page, opening in (
        ("README.md", "Code and the adapters "),
        ("THIRD_PARTY_NOTICES.md", "The shipped adapters ("),
    ):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        (listed,) = (line for line in lines if line.startswith(opening))
        assert all(model["adapter"] in listed for model in shipped.values())


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: dict[str, bytes], tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2, as in Debian 12, has none
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    again = contents(build("wheel", source, tmp_path / "dist"))
    assert again == wheel


def test_sdist_leaves_out_what_commands_write(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    written = ("data/raw/", "data/processed/", "models/runs/")
    assert not [name for name in names if name.startswith(written) or name.endswith(".gguf")]
    assert "tests/test_packaging.py" in names


def test_metadata_of_the_wheel(wheel: dict[str, bytes]) -> None:
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel[name])
    assert (metadata["Name"], metadata["Version"]) == ("emotion-lrm", toolkit.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "THIRD_PARTY_NOTICES.md"}
    info = name.removesuffix("METADATA")
    assert b"emotion-lrm = toolkit.cli:main" in wheel[f"{info}entry_points.txt"]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == toolkit.__version__
    released = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == toolkit.__version__


def test_runtime_needs_no_training_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in project["dependencies"]}
    assert not names & {"torch", "transformers", "datasets", "peft", "scikit-learn", "scipy", "pandas"}
    assert "llama-cpp-python==" in " ".join(project["dependencies"])


def test_readme_shows_only_what_is_there() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert '    pip install ".[local]" && emotion-lrm "I feel disappointed and ignored..."' in lines
    assert '    pip install ".[dev]" && pytest' in lines
    present = "\n".join(line for line in lines if "planned" not in line)
    named = re.findall(r"(?<![\w./])(?:toolkit|convert|prompts|data|models|tests)/[\w./-]*\w", present)
    written = ("data/raw", "data/processed", "models/runs")
    assert not [name for name in named if not name.startswith(written) and not (ROOT / name).exists()]
    commands = re.findall(r"emotion-lrm ([a-z]+)(?: ([a-z]+))?", present)
    assert {"analyze", "evaluate", "train"} <= {name for name, _ in commands}
    for name, inner in commands:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = not isinstance(command, click.Group) or command.get_command(click.Context(command), inner)
        assert known, f"{name} {inner}"


# A home folder, where packages come from, options that point pip elsewhere.
PLACES = re.compile(
    r"(?<![\w.$~])/(?:home|Users|root|work|mnt|tmp)/\w"
    r"|\b[A-Z]:[\\/]Users"
    r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.|debian\.org"
    r"|index[-_]url|find[-_]links|trusted[-_]host"
)


def committed() -> list[Path]:
    """What git knows or would take; in an unpacked sdist, everything."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        return list(files(ROOT))
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_committed_file_tells_where_it_was_made() -> None:
    checkout = re.compile(rf"(?<![\w.]){re.escape(str(ROOT))}(?!\w)")
    told = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace")
        for found in (*PLACES.finditer(text), *checkout.finditer(text)):
            line = text.count("\n", 0, found.start()) + 1
            told.append(f"{path.relative_to(ROOT)}:{line}: {found[0]}")
    assert not told


@pytest.mark.parametrize(
    "line",
    [
        "cache = /" + "home/someone/models",
        "C:" + "\\Users\\someone",
        "pip install --index-" + "url https://example.org/simple",
        "https://pypi" + ".org/simple/",
    ],
)
def test_the_search_for_places_finds_them(line: str) -> None:
    assert PLACES.search(line)
