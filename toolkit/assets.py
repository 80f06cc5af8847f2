"""Where files lie that are not code: the folders that ship, in a wheel or a checkout, and what this machine keeps."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from toolkit.errors import EmotionLRMError

_PACKAGE = Path(__file__).resolve().parent


def asset(*parts: str) -> Path:
    """The path of a shipped file or folder such as ``asset("prompts", "prompt.yaml")``.

    Raises:
        EmotionLRMError: where neither the wheel nor the checkout holds it.
    """
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise EmotionLRMError(
        f"The installed package lacks {'/'.join(parts)}.", "Reinstall emotion-lrm; the installation is incomplete."
    )


def cache_folder() -> Path:
    """``EMOTION_LRM_CACHE`` or the user's cache folder: whatever can be made again."""
    return Path(os.environ.get("EMOTION_LRM_CACHE") or platformdirs.user_cache_dir("emotion-lrm", appauthor=False))
