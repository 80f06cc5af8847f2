"""Where the folders that hold no code lie: in a wheel inside the package, in a checkout at the top."""

from __future__ import annotations

from pathlib import Path

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
