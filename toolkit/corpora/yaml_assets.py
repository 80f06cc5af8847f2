"""Shipped YAML files, read by libyaml where PyYAML was built with it: ten times as fast as its Python parser."""

from __future__ import annotations

from typing import Any

import yaml

from toolkit.assets import asset

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(*parts: str) -> Any:
    """What ``asset(*parts)`` holds."""
    return yaml.load(asset(*parts).read_text(encoding="utf-8"), _Loader)
