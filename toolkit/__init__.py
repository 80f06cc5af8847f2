"""Emotion-LRM: a small language model that reads emotions on your own CPU, offline, and shows what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.contract.analysis import Analysis
    from toolkit.contract.example import Example
    from toolkit.contract.lens import Lens
    from toolkit.contract.taxonomy import Taxonomy
    from toolkit.inference.async_model import AsyncEmotionModel
    from toolkit.inference.model import EmotionModel
    from toolkit.inference.worker import WorkerModel

__version__ = "0.1.0"
__all__ = [
    "Analysis",
    "AsyncEmotionModel",
    "EmotionModel",
    "Example",
    "Lens",
    "Taxonomy",
    "WorkerModel",
    "__version__",
]

_HOMES = {
    "Analysis": "toolkit.contract.analysis",
    "AsyncEmotionModel": "toolkit.inference.async_model",
    "EmotionModel": "toolkit.inference.model",
    "Example": "toolkit.contract.example",
    "Lens": "toolkit.contract.lens",
    "Taxonomy": "toolkit.contract.taxonomy",
    "WorkerModel": "toolkit.inference.worker",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: `emotion-lrm --help` must not pay for llama.cpp.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
