"""Bundle: one zip with wheels, a model and a start script, to be installed where there is no network.

The wheels are those of this very environment: what pip once installed is packed again, each file held against the hash
that was recorded when it was installed. Only llama-cpp-python is built anew, for every processor with AVX2.
"""

import base64
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from email import message_from_bytes
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename

from convert.bundle_start import FEATURES
from convert.errors import ConvertError
from convert.files import explained, locked, replacing, require_space, sha256_of

LLAMA = "llama-cpp-python"
# OpenMP and the image library would each need a file that a bare machine may lack, and a reading needs neither.
CMAKE_ARGS = "-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF"
_X86 = ("x86_64", "amd64")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``start.py`` checks before it installs: ``needs`` are processor features by their names on Linux."""

    version: str
    model: str
    python: str
    system: str
    machine: str
    needs: tuple[str, ...]
    glibc: str
    extras: str

    @property
    def folder(self) -> str:
        """The name of the folder in the zip; the zip itself is named so where nobody names it."""
        tag = f"{self.system}_{self.machine}".lower()
        return f"emotion-lrm-{self.version}-py{self.python.replace('.', '')}-{tag}"


def manifest_of_this_machine(version: str, model: str, extras: Sequence[str] = ()) -> Manifest:
    """Describe the machines that wheels of this interpreter fit."""
    library, glibc = platform.libc_ver()
    return Manifest(
        version=version,
        model=model,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        system=platform.system(),
        machine=platform.machine(),
        needs=tuple(sorted(FEATURES)) if platform.machine().lower() in _X86 else (),
        glibc=glibc if library == "glibc" else "",
        extras=f"[{','.join(extras)}]" if extras else "",
    )


def write_bundle(
    out: Path, manifest: Manifest, wheels: Iterable[Path], model: Path, texts: Mapping[str, str]
) -> tuple[str, ...]:
    """Write the zip; it appears whole or not at all, and an old one is replaced.

    Args:
        out: the zip.
        wheels: go into its folder ``wheels``.
        model: a GGUF, goes into its folder ``model`` under the name that the manifest gives.
        texts: further files by name. ``SHA256SUMS`` is made of all.

    Returns:
        the names of the files in the zip.

    Raises:
        FileError: the disk is full, no permission and the like.
    """
    files = {f"wheels/{wheel.name}": wheel for wheel in sorted(wheels)} | {f"model/{manifest.model}": model}
    start = Path(__file__).with_name("bundle_start.py").read_text(encoding="utf-8")
    texts = {"start.py": start, "bundle.json": json.dumps(asdict(manifest), indent=2), **_starters(manifest), **texts}
    sums = {name: sha256_of(path) for name, path in files.items()}
    sums |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    texts["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    require_space(out.parent, sum(path.stat().st_size for path in files.values()) + (1 << 20))
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in texts.items():
            _add(archive, f"{manifest.folder}/{name}", io.BytesIO(text.encode()), zipfile.ZIP_DEFLATED)
        for name, path in files.items():
            with open(path, "rb") as file:
                _add(archive, f"{manifest.folder}/{name}", file, zipfile.ZIP_STORED)
    return (*texts, *files)


def _add(archive: zipfile.ZipFile, name: str, source: io.BufferedIOBase, compression: int) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = compression
    entry.external_attr = (0o100755 if name.endswith(".sh") else 0o100644) << 16
    with archive.open(entry, "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _starters(manifest: Manifest) -> dict[str, str]:
    python = manifest.python
    shell = (
        "#!/bin/sh\n"
        f"python=$(command -v python{python} || command -v python3 || command -v python) || {{\n"
        f'    echo "Error: Python {python} is needed and none is installed." >&2\n'
        "    exit 1\n"
        "}\n"
        'exec "$python" "$(dirname "$0")/start.py" "$@"\n'
    )
    return {"start.sh": shell, "start.bat": f'@py -{python} "%~dp0start.py" %*\r\n'}


def requirements_of(wheel: Path, extras: Iterable[str] = ()) -> list[Requirement]:
    """Return what a wheel needs on this machine, with these extras.

    Raises:
        ConvertError: it has no such extra, or is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            told = message_from_bytes(archive.read(name))
    except (ValueError, zipfile.BadZipFile) as error:
        raise ConvertError(f"{wheel.name} is no sound wheel", "Build or download it again.") from error
    known = told.get_all("Provides-Extra", [])
    for extra in extras:
        if extra not in known:
            raise ConvertError(f"{told['Name']} has no extra {extra!r}", f"It has: {', '.join(known)}.")
    return _needed(told.get_all("Requires-Dist", []), extras)


def _needed(lines: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    wanted = [Requirement(line) for line in lines]
    asked = ("", *extras)
    return [one for one in wanted if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in asked)]


def distributions_for(wanted: Iterable[Requirement]) -> list[metadata.Distribution]:
    """Return the installed distributions that meet the requirements, and everything that those need, by name.

    Raises:
        ConvertError: one of them is not installed, or in a version that does not meet its requirement.
    """
    found: dict[NormalizedName, metadata.Distribution] = {}
    waiting, seen = list(wanted), set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            distribution = None
        if distribution is None or not requirement.specifier.contains(distribution.version, prereleases=True):
            raise ConvertError(f"{requirement} is not installed", f'Install it with: pip install "{requirement}"')
        found[canonicalize_name(requirement.name)] = distribution
        waiting += _needed(distribution.requires or [], requirement.extras)
    return [found[name] for name in sorted(found)]


def given_wheels(folder: Path) -> dict[NormalizedName, Path]:
    """Return the wheels of a folder that this interpreter can install, by the name of their distribution.

    Raises:
        ConvertError: a file that is no wheel by its name; two versions of one; none that fits.
    """
    tags, found = set(sys_tags()), dict[NormalizedName, Path]()
    for path in sorted(folder.glob("*.whl")):
        try:
            name, _, _, fits = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise ConvertError(f"{path.name} is not named like a wheel", "Take it out of the folder.") from error
        if not fits & tags:
            continue
        if name in found:
            raise ConvertError(f"{folder} holds {name} twice: {found[name].name} and {path.name}", "Take one out.")
        found[name] = path
    if not found:
        raise ConvertError(f"{folder} holds no wheel for this Python and platform", "Give another folder.")
    return found


def require_version(wheel: Path, distribution: metadata.Distribution) -> None:
    """Refuse a wheel of another version than the one that is installed here, and works.

    Raises:
        ConvertError: naming both.
    """
    version = str(parse_wheel_filename(wheel.name)[1])
    if version != distribution.version:
        raise ConvertError(
            f"{wheel.name} is not {distribution.name} {distribution.version}, which is installed here",
            "Give a wheel of that version.",
        )


def pack_wheel(distribution: metadata.Distribution, folder: Path) -> Path:
    """Write the wheel from which a distribution was installed anew, from its files in this environment.

    Scripts are left out, for pip writes them again; so is what lies outside of the folder of packages.

    Raises:
        ConvertError: it was not installed from a wheel, or a file of it has changed since.
        FileError: the disk is full and the like.
    """
    name, version = distribution.name, distribution.version
    tags = [line.partition(":")[2].strip() for line in (distribution.read_text("WHEEL") or "").splitlines()
            if line.startswith("Tag:")]  # fmt: skip
    if not tags or not distribution.files:
        raise ConvertError(f"{name} was not installed from a wheel", "Give one with --wheels, or install it with pip.")
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    path = folder / f"{stem}-{_one_tag(tags)}.whl"
    record, info = [], ""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in distribution.files:
            if ".." in file.parts or "__pycache__" in file.parts or file.is_absolute():
                continue
            if file.parent.name.endswith(".dist-info"):
                info = file.parent.as_posix()
                if file.name in _LEFT_OUT:
                    continue
            content = _unchanged(distribution, file)
            entry = zipfile.ZipInfo(file.as_posix(), _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
            record.append(f"{_csv(file.as_posix())},sha256={_digest(content)},{len(content)}")
        record.append(f"{info}/RECORD,,")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", _EPOCH), "\n".join(record) + "\n")
    return path


def _one_tag(tags: list[str]) -> str:
    """Join tags such as cp311-cp311-linux_x86_64 and cp311-cp311-manylinux1_x86_64 as a wheel's name does."""
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(part)) for part in parts)


def _unchanged(distribution: metadata.Distribution, file: metadata.PackagePath) -> bytes:
    """Return the content of an installed file, held against the hash in its RECORD."""
    path = Path(str(distribution.locate_file(file)))
    with explained(path):
        content = path.read_bytes()
    if file.hash is not None and file.hash.mode == "sha256" and file.hash.value != _digest(content):
        raise ConvertError(
            f"{file} of {distribution.name} has changed since it was installed", "Install the package again."
        )
    return content


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _csv(name: str) -> str:
    return f'"{name}"' if "," in name else name


def editable_source(distribution: metadata.Distribution) -> Path | None:
    """Return the source folder of a distribution that was installed to be edited; None for any other."""
    told = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not told.get("dir_info", {}).get("editable"):
        return None
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(told["url"]).path))


def build_wheel(source: Path | str, folder: Path, *options: str, environ: Mapping[str, str] | None = None) -> Path:
    """Build one wheel with pip, from a source folder or a requirement, and return where it lies in ``folder``.

    Raises:
        ConvertError: with the last line of what pip said.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", work, *options, str(source)]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environ or {})})
            built = list(Path(work).glob("*.whl"))
            if done.returncode or len(built) != 1:
                said = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [
                    f"exit {done.returncode}"
                ]
                raise ConvertError(f"pip could not build {source}: {said[-1].strip()[:300]}", "Give it with --wheels.")
            path = folder / PurePosixPath(built[0].name)
            built[0].replace(path)
            return path


def portable_llama_wheel(version: str, cache: Path, say: Say) -> Path:
    """Return a wheel of llama-cpp-python for every processor with AVX2, built once for each Python and platform.

    Args:
        version: of llama-cpp-python.
        cache: where wheels are kept.
        say: told before a build starts, for that takes minutes.

    Raises:
        ConvertError: it cannot be built.
    """
    python = f"{sys.implementation.cache_tag}-{platform.system()}-{platform.machine()}".lower()
    key = hashlib.sha256(CMAKE_ARGS.encode()).hexdigest()[:12]
    folder = cache / f"{LLAMA}-{version}-{python}-{key}"
    with locked(folder, on_wait=lambda: say("Another process is building llama-cpp-python.")):
        if ready := sorted(folder.glob("*.whl")):
            return ready[0]
        say("Building llama-cpp-python for every processor with AVX2; this takes several minutes, once.")
        # Without pip's cache, which holds a wheel for this machine's own processor.
        options = ("--no-cache-dir", "--no-binary", LLAMA)
        return build_wheel(f"{LLAMA}=={version}", folder, *options, environ={"CMAKE_ARGS": CMAKE_ARGS})
