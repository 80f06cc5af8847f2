"""Build the model that the runtime loads: merge, quantize, check; safe against other builders, kills and full disks."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.adapter import layers_by_tensor, read_adapter, require_base
from convert.errors import FileError, GGUFError
from convert.file_types import DIRECT_TYPES, MIXED, require_file_type
from convert.files import explained, locked, require_space
from convert.gguf_file import CONTENT_HASH, PREFIX, Progress, content_sha256
from convert.header import Header, check_header
from convert.merge import merge_adapter, merged_plans, merged_size
from convert.quantize import quantize

BUILD_ID = PREFIX + "build_id"
_RECIPE_VERSION = 2  # raise it when the same inputs begin to give another file


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A model ready to load. ``built`` is False where an equal one was there already; ``seconds`` is wall time."""

    path: Path
    file_type: str
    built: bool
    seconds: float
    n_bytes: int


def build_model(
    base_gguf: Path | str,
    adapter_dir: Path | str,
    out_file: Path | str,
    file_type: str = "BF16",
    metadata: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
    texts: Sequence[str] = (),
) -> BuildResult:
    """Make sure that ``out_file`` is the base with the adapter merged in, in this file type.

    A file that was built from the very same inputs is kept. Two processes may call this at once: one builds, the other
    waits and finds the result. A killed build leaves the old file, or none, and a hidden ``.NAME.build`` folder that
    the next build removes; what is half-written never bears the name ``out_file``.

    Args:
        base_gguf, adapter_dir, metadata, chat_template, progress: as for ``convert.merge.merge_adapter``.
        out_file: where the model goes.
        file_type: one of ``FILE_TYPES``.
        texts: as for ``convert.quantize.quantize``.

    Raises:
        GGUFError, AdapterError: the inputs cannot be used, or do not belong together; found before any work starts.
        FileError: too little disk space (checked beforehand), no permission, and the like.
    """
    started = time.monotonic()
    out_file = Path(out_file).absolute()
    file_type = require_file_type(file_type)
    base = check_header(base_gguf)
    texts = texts if file_type == MIXED else ()
    build_id = _build_id(base, adapter_dir, file_type, metadata, chat_template, texts)
    if not is_built(out_file, build_id):
        with locked(out_file, on_wait=lambda: _report(progress, "another process is building this model")):
            if not is_built(out_file, build_id):
                given = {**(metadata or {}), BUILD_ID: build_id}
                _build(base, Path(adapter_dir), out_file, file_type, given, chat_template, progress, texts)
                return _result(out_file, file_type, True, started)
    return _result(out_file, file_type, False, started)


def is_built(path: Path, build_id: str) -> bool:
    """Say whether a sound file built from exactly these inputs is there (the header is read, not the weights)."""
    try:
        return path.is_file() and check_header(path).metadata.get(BUILD_ID) == build_id
    except (GGUFError, FileError):
        return False


def _build(
    base: Header,
    adapter_dir: Path,
    out_file: Path,
    file_type: str,
    metadata: Mapping[str, Any],
    chat_template: str | None,
    progress: Progress | None,
    texts: Sequence[str],
) -> None:
    work = out_file.with_name(f".{out_file.name}.build")
    direct = file_type in DIRECT_TYPES and not texts
    with explained(work):
        if work.exists():
            shutil.rmtree(work)  # the lock is ours, so whoever made it is dead
        needed = merged_size(merged_plans(base, file_type if direct else "F32"), base)
        require_space(out_file.parent, needed if direct else int(needed * 1.3))
        work.mkdir(parents=True)
        try:
            built = work / "model.gguf"
            merged = built if direct else work / "merged.gguf"
            merged_type = file_type if direct else "F32"
            merge_adapter(base.path, adapter_dir, merged, merged_type, metadata, chat_template, progress)
            if not direct:
                quantize(merged, built, file_type, progress, texts=texts)
            require_sealed(built)
            built.replace(out_file)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def require_sealed(path: Path | str) -> None:
    """Read a whole file back and hold it against the hash it carries.

    Raises:
        GGUFError: the file is not, bit for bit, what was written.
    """
    header = check_header(path)
    if content_sha256(header) != header.metadata[CONTENT_HASH]:
        raise GGUFError(f"{Path(path).name} is damaged: its content does not match its hash", "Build it again.")


def _build_id(
    base: Header,
    adapter_dir: Path | str,
    file_type: str,
    metadata: Mapping[str, Any] | None,
    chat_template: str | None,
    texts: Sequence[str],
) -> str:
    """Return a SHA-256 over everything the result depends on, after checking that base and adapter fit."""
    adapter = read_adapter(adapter_dir)
    layers_by_tensor(adapter, base)
    base_sha256 = require_base(adapter, base.path, base)
    recipe = [_RECIPE_VERSION, base_sha256, adapter.sha256, file_type, dict(metadata or {}), chat_template, list(texts)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _report(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(0, 1, what)


def _result(path: Path, file_type: str, built: bool, started: float) -> BuildResult:
    return BuildResult(path, file_type, built, time.monotonic() - started, path.stat().st_size)
