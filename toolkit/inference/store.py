"""Which models there are, where they lie, and how a shipped one is built on first use."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import FileError, GGUFError
from convert.file_types import FILE_TYPES, MIXED, default_file_type
from convert.header import check_header
from toolkit.assets import asset, cache_folder
from toolkit.base import BaseModelConfig, find_base_gguf, load_base
from toolkit.config import Config, load_config
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt
from toolkit.errors import EmotionLRMError, ModelError, UsageError
from toolkit.inference.origin import remark_on
from toolkit.inference.tuning import find_file_type

Progress = Callable[[int, int, str], None]


class ShippedModel(Config):
    """A model that can be built from what the installation carries."""

    adapter: str
    base: str
    lenses: list[Lens]
    licence: str
    datasets: list[str]


class Shipped(Config):
    """``models/configs/shipped.yaml``."""

    default: str
    models: dict[str, ShippedModel]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF in the cache folder, with the metadata that this project wrote into it."""

    name: str
    path: Path
    bytes: int
    metadata: dict[str, Any]


def models_folder() -> Path:
    """Where built models lie."""
    return cache_folder() / "models"


def load_shipped() -> Shipped:
    """The models that this installation can build."""
    return load_config(Shipped, asset("models", "configs", "shipped.yaml"))


def parse_name(name: str | None) -> tuple[str, str]:
    """A model name as (shipped name, file type); None is the default, and without a file type this machine's best.

    Raises:
        ModelError: for an unknown name.
    """
    shipped = load_shipped()
    name = name or shipped.default
    if name in shipped.models:
        return name, _own_file_type(shipped.models[name].adapter)
    for known in shipped.models:
        suffix = name.removeprefix(f"{known}-").upper()
        if name.startswith(f"{known}-") and suffix in FILE_TYPES:
            return known, suffix
    types = ", ".join(kind.lower() for kind in FILE_TYPES)
    raise ModelError(
        f"There is no model {name!r}.",
        f"Known: {', '.join(shipped.models)}, optionally followed by - and one of {types}; or pass a GGUF file.",
    )


def _own_file_type(adapter: str) -> str:
    """What ``bench --tune`` found to be this machine's best, else what its processor promises."""
    kept = find_file_type(asset("models", "adapters", adapter))
    return kept if kept in FILE_TYPES else default_file_type()


def default_name(lenses: Collection[Lens]) -> str:
    """The shipped model that reads through all of ``lenses``; the default one if it does.

    Raises:
        UsageError: where none does.
    """
    shipped = load_shipped()
    for name in (shipped.default, *shipped.models):
        if set(lenses) <= set(shipped.models[name].lenses):
            return name
    raise UsageError(
        f"No model that ships reads through the lens {' and '.join(lenses)}.", "Name one that does with --model FILE."
    )


def names_file(name: str) -> bool:
    """Whether a model is asked for by its file instead of its name."""
    return name.endswith(".gguf") or os.sep in name


def model_path(name: str | None) -> Path:
    """Where the GGUF of a shipped model lies once it is built."""
    known, file_type = parse_name(name)
    return models_folder() / f"{known}-{file_type.lower()}.gguf"


def locate(name: str | None) -> Path:
    """The GGUF of a model that is there already: a file path, or a name.

    Raises:
        ModelError: where it is not there.
    """
    if name and names_file(name):
        if not Path(name).is_file():
            raise ModelError(
                f"There is no model file {name}.", "Check the path, or pass a name from: emotion-lrm models"
            )
        return Path(name)
    path = model_path(name)
    if not path.is_file():
        raise ModelError(f"The model {path.stem} is not built yet.", "Any analysis builds it: emotion-lrm TEXT")
    return path


def licence_remark(name: str | None) -> str:
    """A sentence for models whose licence is not as free as this project's; empty for the others."""
    try:
        shipped = load_shipped().models[parse_name(name)[0]]
    except (EmotionLRMError, KeyError):
        return ""
    return remark_on(shipped.licence, shipped.datasets)


def ensure(name: str | None, progress: Progress | None = None) -> Path:
    """The GGUF of a model, built first if it is a shipped one that is missing or out of date.

    Safe when several processes ask at once and when a build is killed half-way.
    """
    if name and names_file(name):
        return locate(name)
    from convert.build import build_model

    known, file_type = parse_name(name)
    path, shipped = model_path(name), load_shipped().models[known]
    base, adapter = load_base(shipped.base), asset("models", "adapters", shipped.adapter)
    metadata = build_metadata(known, shipped, base)
    metadata["recipe"] = _recipe(adapter, file_type, metadata, chat_template(base))
    if not _is_current(path, metadata["recipe"]):
        build_model(
            find_base_gguf(base),
            adapter,
            path,
            file_type,
            metadata=metadata,
            chat_template=chat_template(base),
            progress=progress,
            texts=_weighing_texts(base, file_type),
        )
    return path


def _weighing_texts(base: BaseModelConfig, file_type: str) -> list[str]:
    """What the rounding of the mixed file type is weighed by; nothing for the others."""
    if file_type != MIXED:
        return []
    from toolkit.inference.weighing import weighing_texts

    return weighing_texts(find_base_gguf(base))


def _recipe(adapter: Path, file_type: str, metadata: dict[str, Any], template: str) -> str:
    """A hash over what this installation would build, found without reading the base: its hash is in ``base.json``."""
    digest = hashlib.sha256(json.dumps([file_type, metadata, template], sort_keys=True).encode())
    for name in ("base.json", "adapter_config.json", "adapter_model.safetensors"):
        path = adapter / name
        if not path.is_file():
            raise ModelError(f"The adapter {adapter.name} lacks {name}.", "Reinstall emotion-lrm.")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_current(path: Path, recipe: str) -> bool:
    try:
        return path.is_file() and check_header(path).metadata.get("emotion_lrm.recipe") == recipe
    except (GGUFError, FileError):
        return False


def build_metadata(name: str, shipped: ShippedModel, base: BaseModelConfig) -> dict[str, Any]:
    """What a built GGUF says of itself under ``emotion_lrm.``"""
    calibration = asset("models", "adapters", shipped.adapter) / "calibration.json"
    return {
        "name": name,
        "base": base.model_id,
        "adapter": shipped.adapter,
        "datasets": list(shipped.datasets),
        "licence": shipped.licence,
        "lenses": [str(lens) for lens in shipped.lenses],
        "taxonomies": [lens.native for lens in shipped.lenses],
        "context_window": base.context_window,
        "prompt_hash": load_prompt().digest,
        "calibration": calibration.read_text(encoding="utf-8") if calibration.is_file() else "{}",
    }


def chat_template(base: BaseModelConfig) -> str:
    """Our prompt through the author's lens as the Jinja template that other programs render, in the base's frame.

    The last message is the text; whoever serves it must hold the answer to the grammar or schema.
    """
    spec = load_prompt()
    frame = next(frame for frame in spec.frames if frame["name"] == base.frame)
    around = (frame["head"].format(question=spec.questions[Lens.AUTHOR]), frame["tail"])
    head, tail = (part.replace("\n", "\\n") for part in around)
    return f"{{{{ '{head}' }}}}{{{{ messages[-1]['content'] | trim }}}}{{{{ '{tail}' }}}}"


def installed() -> list[ModelFile]:
    """The sound models in the cache folder, by name."""
    found = []
    for path in sorted(models_folder().glob("*.gguf")):
        try:
            metadata = check_header(path).metadata
        except (GGUFError, FileError):
            continue
        ours = {k.removeprefix("emotion_lrm."): v for k, v in metadata.items() if k.startswith("emotion_lrm.")}
        found.append(ModelFile(path.stem, path, path.stat().st_size, ours))
    return found


def remove(name: str) -> Path:
    """Delete a built model from the cache folder; returns where it lay.

    Raises:
        UsageError: for a path outside the cache folder.
    """
    path = locate(name)
    if path.parent.resolve() != models_folder().resolve():
        raise UsageError(f"{name} does not lie in the cache folder.", "Delete the file yourself.")
    path.unlink()
    return path
