"""What doctor looks at: each question returns a status (ok, warning, broken) and a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from convert.errors import ConvertError
from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings, config_file, resolve

PATIENCE = 90.0  # seconds that native code gets; a healthy answer takes about two
PACKAGES = ("llama-cpp-python", "numpy", "gguf", "safetensors", "pydantic", "PyYAML", "click", "rich", "filelock")
CONTROL_GROUP = Path("/sys/fs/cgroup")
NATIVE = ("cpu", "abi", "kernel", "tokenizer", "self-test")
HUB_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_MB = 1_000_000
_BUILT = 300 * _MB  # the default model at its largest; building takes about twice as much for a while
_CONTEXT = 250 * _MB + 110 * _MB  # what a run takes besides the weights: working memory and KV cache

Finding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: ``status`` is ok, warning or broken."""

    name: str
    status: str
    detail: str


@dataclass(slots=True)
class Files:
    """The files that were found on the way, for the questions that come later."""

    settings: Settings = field(default_factory=Settings)
    base: list[Path] = field(default_factory=list)  # one file, or parts of one
    model: Path | None = None

    def whole_base(self) -> Path | None:
        """The base as one GGUF, where it is one and the model was built upon it as far as one knows."""
        from toolkit.inference.store import names_file

        known = not names_file(self.settings.model or "")
        return self.base[0] if len(self.base) == 1 and known else None


def examine() -> Iterator[Check]:
    """Look at everything; what fails unexpectedly is broken, and the rest is looked at all the same."""
    files = Files()
    yield ask("python", python_version)
    yield ask("packages", package_versions)
    yield ask("settings", lambda: settings(files))
    yield ask("base", lambda: base_weights(files))
    yield ask("model", lambda: model_file(files))
    yield ask("threads", threads)
    yield ask("memory", lambda: memory([files.model] if files.model else files.base))
    yield ask("disk", lambda: disk(files.model is not None))
    yield ask("cache folder", lambda: cache_folder(files.model is not None))
    yield ask("config folder", config_folder)
    yield ask("offline", offline)
    yield from native(files.model, files.whole_base())


def ask(name: str, question: Callable[[], Finding]) -> Check:
    """One check with whatever its question finds, or how it fails."""
    try:
        return Check(name, *question())
    except (EmotionLRMError, ConvertError) as error:
        return Check(name, "broken", f"{error} {error.hint}".strip())
    except Exception as error:
        return Check(name, "broken", f"{type(error).__name__}: {error}")


def python_version() -> Finding:
    """This interpreter; 3.11 is the oldest that works."""
    told = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}"
    return ("ok" if sys.version_info >= (3, 11) else "broken"), told


def package_versions() -> Finding:
    """The packages that a reading needs."""
    found, lacking = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lacking.append(name)
    if lacking:
        return "broken", f"missing: {', '.join(lacking)}; install them with: pip install {' '.join(lacking)}"
    return "ok", ", ".join(found)


def settings(files: Files) -> Finding:
    """The configuration file and the environment, as a command without flags would take them."""
    files.settings = resolve({})
    given = files.settings.model_dump(exclude_unset=True)
    source = config_file()
    told = ", ".join(f"{key} {value}" for key, value in given.items()) or "defaults"
    return "ok", f"{told} ({source if source.exists() else 'no configuration file'})"


def base_weights(files: Files) -> Finding:
    """The weights of the base of the model that is asked for, which a build needs, and their hash."""
    from convert.files import sha256_of
    from toolkit.base import base_files, load_base
    from toolkit.inference.store import load_shipped, names_file, parse_name

    name = files.settings.model
    shipped = load_shipped()
    known = shipped.default if name is None or names_file(name) else parse_name(name)[0]
    base = load_base(shipped.models[known].base)
    try:
        found = base_files(base)
    except EmotionLRMError as error:
        return "warning", f"{error} {error.hint}"
    assert base.gguf is not None
    if sha256_of(*found) != base.gguf.sha256:
        return "broken", f"{found[0]} is not the file it should be: its SHA-256 differs; install it again"
    files.base = found
    size = sum(file.stat().st_size for file in found)
    return "ok", f"{base.model_id}, {size / _MB:.0f} MB, SHA-256 as published"


def model_file(files: Files) -> Finding:
    """The model that a command without flags would load: there, and bit for bit what was built."""
    from convert.build import require_sealed
    from convert.gguf_file import CONTENT_HASH
    from convert.header import check_header
    from toolkit.inference.store import locate, names_file, parse_name

    name = files.settings.model
    try:
        path = locate(name)
    except EmotionLRMError as error:
        if name is not None and names_file(name):
            raise
        parse_name(name)
        can_build = bool(files.base)
        return ("warning" if can_build else "broken"), f"{error} {error.hint if can_build else 'Its base is missing.'}"
    if CONTENT_HASH not in check_header(path).metadata:
        files.model = path
        return "warning", f"{path} carries no hash of its content, so damage would not be seen"
    require_sealed(path)
    files.model = path
    return "ok", f"{path}, {path.stat().st_size / _MB:.0f} MB, content as built"


def threads() -> Finding:
    """Processors that a reading takes, and whether others are using them: llama.cpp's threads spin while they wait."""
    from toolkit.inference.tuning import available_threads

    usable, present = available_threads(), os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    told = f"{usable} of {present} processors usable, load {load:.1f}"
    if load > usable:
        return "warning", f"{told}: other programs keep them busy, and readings are slow; fewer --threads may be faster"
    return "ok", told


def memory(weights: list[Path]) -> Finding:
    """Free memory against what the weights and a full context take."""
    available = available_memory()
    needed = (sum(file.stat().st_size for file in weights) or _BUILT) + _CONTEXT
    if available is None:
        return "ok", f"this system does not tell; about {needed / _MB:,.0f} MB are needed"
    told = f"{available / _MB:,.0f} MB free, about {needed / _MB:,.0f} MB needed"
    return ("ok", told) if available >= needed else ("warning", f"{told}; close other programs")


def available_memory() -> int | None:
    """Bytes that a new program may take, within the limit of its control group; None where the system hides it."""
    found = []
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        used = int((CONTROL_GROUP / "memory.current").read_text())
        told = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        if limit.isdigit():
            found.append(int(limit) - used + int(told["inactive_file"]))  # files kept in memory make room when asked
    except (OSError, KeyError, ValueError):
        pass  # no Linux, or no control group
    return min(found, default=None)


def disk(built: bool) -> Finding:
    """Free space where models are kept."""
    from toolkit.inference.store import models_folder

    place = nearest(models_folder())
    free, needed = shutil.disk_usage(place).free, 0 if built else 2 * _BUILT
    told = f"{free / _MB:,.0f} MB free in {place}"
    if free < needed:
        return "broken", f"{told}; building the model takes {needed / _MB:,.0f} MB"
    return ("warning", f"{told}; that is little") if free < 100 * _MB else ("ok", told)


def cache_folder(built: bool) -> Finding:
    """Whether a model can be written; once it is there, reading it is enough."""
    from toolkit.inference.store import models_folder

    refusal = refused(models_folder())
    if refusal is None:
        return "ok", f"{models_folder()} can be written"
    return ("warning" if built else "broken"), f"{refusal}; set EMOTION_LRM_CACHE to a folder that can be written"


def config_folder() -> Finding:
    """Whether settings could be kept; nothing needs them."""
    folder = config_file().parent
    refusal = refused(folder)
    return ("ok", f"{folder} can be written") if refusal is None else ("warning", refusal)


def offline() -> Finding:
    """No reading needs a network; these variables keep even the tools for training from asking for one."""
    told = [f"{name}={os.environ[name]}" for name in HUB_VARIABLES if os.environ.get(name)]
    return "ok", f"readings need no network; {', '.join(told) or 'the hub may be asked for training data'}"


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def refused(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the nearest one above it that is there; None where one can."""
    place = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        return f"{place} cannot be written: {error.strerror or error}"
    return None


def native(model: Path | None, base: Path | None) -> Iterator[Check]:
    """What only llama.cpp can answer, asked in a process of its own that may abort or hang."""
    try:
        said, end = asked_natively(model, base)
    except Exception as error:
        said, end = "", f"{type(error).__name__}: {error}"
    answers = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # llama.cpp may print lines of its own
            answers.append(Check(**json.loads(line)))
    yield from answers
    asked = NATIVE if model or base else NATIVE[:3]
    missing = [name for name in asked if name not in {check.name for check in answers}]
    for name in missing:
        yield Check(name, "broken", end if name == missing[0] else "not reached")


def asked_natively(model: Path | None, base: Path | None) -> tuple[str, str]:
    """What the process with llama.cpp printed, and how it ended."""
    from toolkit.inference.boot import python_command

    command = python_command("toolkit.inference.probe:main", str(model or ""), str(base or ""))
    environ = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environ, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        return said, f"no answer within {PATIENCE:.0f} s"
    return done.stdout, f"llama.cpp {ending(done.returncode, done.stderr)}"


def ending(code: int, stderr: str) -> str:
    """How a process ended and what it said last."""
    last = (stderr.strip().splitlines() or [""])[-1][:300]
    if code == -getattr(signal, "SIGILL", 4):
        return "was built for another processor; build it again: pip install --force-reinstall --no-cache-dir " + (
            "--no-binary llama-cpp-python llama-cpp-python"
        )
    how = f"died of {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return f"{how}: {last}" if last else how


def signal_name(number: int) -> str:
    """SIGKILL and the like, or the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
