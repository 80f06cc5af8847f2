"""How many threads, sequences and tokens a pass suit one model on one machine: measured once, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convert.files import replacing
from convert.gguf_file import CONTENT_HASH

PROCESSOR, LOAD, QUOTA = Path("/proc/cpuinfo"), Path("/proc/loadavg"), Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What ``bench --tune`` looks for; without it, what two cores of a laptop like.

    Attributes:
        threads: for batches; None takes the processors that are free.
        single_threads: for one token at a time; None takes as many.
        active: sequences that are written at the same time.
        rows: the most tokens of a pass that reads several texts; None takes as many as keep them independent.
    """

    threads: int | None = None
    single_threads: int | None = None
    active: int = 32
    rows: int | None = None

    def __post_init__(self) -> None:
        counts = [self.active, *(n for n in (self.threads, self.single_threads, self.rows) if n is not None)]
        if any(not isinstance(n, int) or n < 1 for n in counts) or self.active > 63 or (self.rows or 1) > 512:
            raise ValueError(f"no sound tuning: {self}")

    def among(self, free: int) -> tuple[int, int]:
        """Threads for batches and for single tokens, where so many processors are free."""
        threads = min(self.threads or free, free)
        return threads, min(self.single_threads or threads, free)


def tuning_file() -> Path:
    """Where measured tunings are kept, beside the models."""
    from toolkit.inference.store import models_folder

    return models_folder().with_name("tuning.json")


def machine_and_model(metadata: Mapping[str, Any]) -> str | None:
    """The key of a tuning: processor, number of cores, llama-cpp-python and the model's content; None if unsealed."""
    content = metadata.get(CONTENT_HASH)
    return _key(content) if content else None


def _key(*of: str) -> str:
    parts = (processor(), os.cpu_count(), version("llama-cpp-python"), *of)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_tuning(metadata: Mapping[str, Any]) -> Tuning | None:
    """The tuning measured on this machine for the model with this GGUF metadata, or None.

    A file that is damaged, or of another version, counts as none.
    """
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        return Tuning(**_kept()[machine_and_model(metadata) or ""]["tuning"])
    return None


def keep_tuning(metadata: Mapping[str, Any], tuning: Tuning, told: Mapping[str, Any]) -> Path | None:
    """Remember a tuning with what else is ``told`` of it; returns the file, or None for a model without a hash."""
    key = machine_and_model(metadata)
    return _keep(key, {**told, "tuning": asdict(tuning)}) if key else None


def find_file_type(adapter: Path) -> str | None:
    """The file type that was measured to suit a shipped adapter on this machine, or None."""
    if not (kept := _kept()):  # the usual case costs no look at the adapter
        return None
    with contextlib.suppress(AttributeError, KeyError, OSError, TypeError):
        return str(kept[_key(_digest(adapter))]["file_type"])
    return None


def keep_file_type(adapter: Path, file_type: str, told: Mapping[str, Any]) -> Path:
    """Remember a file type for a shipped adapter with what else is ``told`` of it; returns the file."""
    return _keep(_key(_digest(adapter)), {**told, "file_type": file_type})


def _digest(adapter: Path) -> str:
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def _kept() -> dict[str, Any]:
    """What is kept, by key; nothing where the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(tuning_file().read_text(encoding="utf-8")))
    return {}


def _keep(key: str, told: Mapping[str, Any]) -> Path:
    path = tuning_file()
    with replacing(path) as temporary:
        known = json.dumps({**_kept(), key: told}, indent=1, sort_keys=True)
        temporary.write_text(known + "\n", encoding="utf-8")
    return path


def processor(cpuinfo: Path = PROCESSOR) -> str:
    """The processor's name and family, as the system tells it."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    named = fields.get("model name") or platform.processor() or platform.machine()
    family = "/".join(fields[name] for name in ("cpu family", "model", "stepping") if name in fields)
    return f"{named} ({family})" if family else named


def available_threads(quota: Path = QUOTA) -> int:
    """The processors that this process may use, or as many as its container's quota pays for.

    llama.cpp's threads spin, so never more than that.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else (os.cpu_count() or 2) // 2
    with contextlib.suppress(OSError, ValueError):  # no file, or "max" in it: no quota
        allowed, period = map(int, quota.read_text().split())
        count = min(count, math.ceil(allowed / period))
    return max(1, count)


def free_threads(load: Path = LOAD) -> int:
    """The processors that this process may use and that nobody else keeps busy at this moment; at least one."""
    return max(1, min(available_threads(), (os.cpu_count() or 1) - busy_elsewhere(load)))


def busy_elsewhere(load: Path = LOAD, looks: int = 5) -> int:
    """Threads of other programs that want to run: the fewest in a few looks within 8 ms; 0 where it isn't told."""
    found = []
    for look in range(looks):
        time.sleep(0.002 if look else 0)
        try:
            found.append(int(load.read_text().split()[3].partition("/")[0]) - 1)  # less the one that looks
        except (OSError, IndexError, ValueError):
            return 0
    return max(0, min(found))
