"""Start the bundle that this file lies in: check the machine, install from the files beside it once, then run.

It is copied into a bundle as ``start.py`` and runs there by itself, so it imports nothing but the standard library and
says in one sentence what is wrong, on any Python since 3.7.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENV = "EMOTION_LRM_BUNDLE_VENV"
CPUINFO = Path("/proc/cpuinfo")
FEATURES = {"avx2", "fma", "f16c", "bmi2"}  # what ggml takes for granted on x86 with GGML_NATIVE=OFF
_AVX2_ON_WINDOWS = 40  # PF_AVX2_INSTRUCTIONS_AVAILABLE


def main(arguments: list[str]) -> int:
    """Check, install on the first start, and run ``emotion-lrm`` with the arguments; returns an exit code."""
    manifest = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    trouble = unfit(manifest)
    if trouble:
        return fail(trouble)
    folder = Path(os.environ.get(VENV) or HERE / ".venv").absolute()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed.json"
    if not (done.is_file() and done.read_text(encoding="utf-8") == json.dumps(manifest)):
        trouble = damaged() or install(folder, python, manifest)
        if trouble:
            return fail(trouble)
        done.write_text(json.dumps(manifest), encoding="utf-8")
    os.environ.setdefault("EMOTION_LRM_MODEL", str(HERE / "model" / manifest["model"]))
    command = [str(python), "-m", "toolkit.cli", *arguments]
    if os.name != "nt":
        os.execv(command[0], command)
    return subprocess.call(command)


def fail(sentence: str) -> int:
    """Say what is wrong; returns the exit code 1."""
    sys.stderr.write(f"Error: {sentence}\n")
    return 1


def unfit(manifest: dict[str, Any], cpuinfo: Path = CPUINFO) -> str | None:
    """Why this machine cannot run the bundle, in one sentence; None where it can."""
    here = {"system": platform.system(), "machine": platform.machine(), "python": version_of(sys.version_info[:2])}
    for what, name in (("system", "operating system"), ("machine", "processor type"), ("python", "Python")):
        if here[what].lower() != manifest[what].lower():
            wish = f"; start it with Python {manifest[what]}" if what == "python" else ""
            return f"This bundle is for the {name} {manifest[what]}, and this is {here[what]}{wish}."
    lacking = set(manifest["needs"]) - cpu_features(cpuinfo) if manifest["needs"] else set()
    if lacking:
        names = ", ".join(sorted(flag.upper() for flag in lacking))
        return f"This processor lacks {names}, which the bundled llama.cpp needs; install emotion-lrm from source."
    library, version = platform.libc_ver()
    if library == "glibc" and manifest["glibc"] and numbers(version) < numbers(manifest["glibc"]):
        return f"This system has glibc {version}, and the bundle needs {manifest['glibc']}; use a newer system."
    return None


def version_of(parts: tuple[int, ...]) -> str:
    """A version as text, (3, 11) as ``3.11``."""
    return ".".join(map(str, parts))


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, ``2.36`` as (2, 36)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def cpu_features(cpuinfo: Path = CPUINFO) -> set[str]:
    """The x86 features of this processor that a bundle may need, by their names on Linux."""
    system = platform.system()
    if system == "Windows":
        windll: Any = ctypes.__dict__["windll"]
        return FEATURES if windll.kernel32.IsProcessorFeaturePresent(_AVX2_ON_WINDOWS) else set()
    if system == "Darwin":
        names = ["machdep.cpu.features", "machdep.cpu.leaf7_features"]
        told = subprocess.run(["sysctl", "-n", *names], stdout=subprocess.PIPE, check=False).stdout.decode()
        return FEATURES & set(told.lower().split())
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return FEATURES & set(value.split())
    return set()


def damaged() -> str | None:
    """Which file of the bundle is not as it was written, in one sentence; None where all are."""
    for line in (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        digest = hashlib.sha256()
        try:
            with open(HERE / name, "rb") as file:
                for block in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                    digest.update(block)
        except OSError as error:
            return f"The bundle is not whole: {name}: {error.strerror}; unpack it again."
        if digest.hexdigest() != expected:
            return f"The bundle is damaged: {name} has changed; unpack it again."
    return None


def install(folder: Path, python: Path, manifest: dict[str, Any]) -> str | None:
    """Make a virtual environment and install into it without any index; returns what went wrong, or None."""
    sys.stderr.write(f"Installing into {folder}; this happens once.\n")
    try:
        if (folder / "pyvenv.cfg").is_file():
            shutil.rmtree(folder)  # half-finished, or of another bundle
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}); set {VENV} to another folder."
    if not run([sys.executable, "-m", "venv", str(folder)]):
        return f"Python could not make a virtual environment in {folder}; is venv installed, and room on the disk?"
    pip = [str(python), "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    wanted = f"emotion-lrm{manifest['extras']}=={manifest['version']}"
    if not run([*pip, "--no-cache-dir", "-f", str(HERE / "wheels"), wanted]):
        return "The bundled packages could not be installed; the lines above say why."
    return None


def run(command: list[str]) -> bool:
    """Run a command with its output on standard error; says whether it went well."""
    return subprocess.call(command, stdout=sys.stderr) == 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
