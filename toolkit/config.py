"""Configuration files: YAML checked by pydantic, with errors that name the file, the key and the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.errors import ConfigError


class Config(BaseModel):
    """The base of every configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: Path, overrides: tuple[str, ...] = ()) -> C:
    """Read ``path`` into ``kind``; each override is ``key.sub=value`` with a YAML value and wins over the file.

    Raises:
        ConfigError: for a missing file, broken YAML, an unknown key or a value of the wrong kind.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.", "Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.", "Mend the file.") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no mapping at the top.", "Write it as `key: value` lines.")
    return _validated(kind, raw, overrides, str(path))


def override(config: C, changes: tuple[str, ...], named: str) -> C:
    """The configuration with ``changes`` of the form ``key.sub=value``; ``named`` is what errors call it.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    return _validated(type(config), config.model_dump(), changes, named)


def _validated(kind: type[C], raw: dict[str, Any], overrides: tuple[str, ...], named: str) -> C:
    for change in overrides:
        _apply(raw, change)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _explain(kind, named, error) from None


def _apply(raw: dict[str, Any], change: str) -> None:
    dotted, separator, value = change.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{change!r} is not of the form key=value.", "For example --set epochs=2.")
    *parents, last = dotted.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{dotted!r} goes through {parent!r}, which holds no keys.", "Check the spelling.")
    raw[last] = yaml.safe_load(value)


def _explain(kind: type[Config], named: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{named}: {key}: {first['msg']}.", "Correct the value.")
    known = list(_known_keys(kind))
    above = ".".join(part for part in first["loc"][:-1] if isinstance(part, str))
    beside = [path for path in known if path.rpartition(".")[0] == above]
    places = {path.rpartition(".")[2]: path for path in [*reversed(known), *beside]}
    near = difflib.get_close_matches(str(first["loc"][-1]), places, 1)
    hint = f"Did you mean {places[near[0]]!r}?" if near else f"Known keys: {', '.join(known)}."
    return ConfigError(f"{named} has an unknown key {key!r}.", hint)


def _known_keys(kind: type[BaseModel], under: str = "") -> Iterator[str]:
    """Every key behind those that it lies under, such as ``data.dev_limit``."""
    for name, field in kind.model_fields.items():
        yield under + name
        for inner in _kinds_in(field.annotation):
            yield from _known_keys(inner, f"{under}{name}.")


def _kinds_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configurations that an annotation names, alone, optional or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _kinds_in(part)
