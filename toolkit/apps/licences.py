"""What may be done with a model that is handed on, as the files that lie beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.assets import asset
from toolkit.inference.origin import GEMMA, NON_COMMERCIAL, PROJECT_LICENCE, remark_on

_OF_THE_REST = f"LICENSE-{PROJECT_LICENCE}"
_TERMS = f"""\
{NON_COMMERCIAL} is Creative Commons Attribution-NonCommercial 4.0 International:
https://creativecommons.org/licenses/by-nc/4.0/

It covers the weights in this file and what is made from them. They may be shared and changed where their authors are
named, and may not be used commercially.

The reason: the model learned from EmpatheticDialogues, which is under this licence (Hannah Rashkin, Eric Michael Smith,
Margaret Li and Y-Lan Boureau: "Towards Empathetic Open-domain Conversation Models: a New Benchmark and Dataset", ACL
2019, Facebook AI Research).
"""


def licences(name: str, told: Mapping[str, Any]) -> dict[str, str]:
    """Licence and notices by file name; LICENSE is the model's, whatever the rest of the folder is under.

    Args:
        name: of the model; its file is ``NAME.gguf``.
        told: what the GGUF says under ``emotion_lrm.``
    """
    texts = _of_the_project()
    if told.get("licence") == PROJECT_LICENCE:
        return texts
    texts |= {"LICENSE": _notice(name, told), _OF_THE_REST: texts["LICENSE"]}
    return texts | _of_gemma() if GEMMA in told.get("licence", "") else texts


def remark(told: Mapping[str, Any]) -> str:
    """A sentence for a model that may not be used as one likes; empty for others."""
    return remark_on(told.get("licence", ""), told.get("datasets", ()))


def _notice(name: str, told: Mapping[str, Any]) -> str:
    """The licence of a model that is not under the project's own, in words."""
    licence = told.get("licence", "")
    under = f"is under {licence}" if licence else "says nothing of its licence; ask whoever made it"
    parts = [f"The model {name}.gguf {under}.\n"]
    if NON_COMMERCIAL in licence:
        parts.append(_TERMS)
    if told.get("base"):
        parts.append(f"It was made from {told['base']}, whose licence holds for it too.\n")
    parts.append(f"Everything else here is under {PROJECT_LICENCE}, see {_OF_THE_REST} and THIRD_PARTY_NOTICES.md.\n")
    return "\n".join(parts)


def _of_gemma() -> dict[str, str]:
    """What Google's terms want to lie beside whatever is made from Gemma: themselves, and a notice."""
    folder = asset("models", "adapters", "told-gemma")
    return {name: (folder / name).read_text(encoding="utf-8") for name in ("GEMMA_TERMS.md", "NOTICE")}


def _of_the_project() -> dict[str, str]:
    """The project's licence and notices: from the checkout, else from the installed package."""
    from importlib import metadata

    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return {name: (root / name).read_text(encoding="utf-8") for name in ("LICENSE", "THIRD_PARTY_NOTICES.md")}
    files = metadata.distribution("emotion-lrm").files or []
    named = {path.name: path for path in files if "licenses" in path.parts}
    return {name: Path(str(path.locate())).read_text(encoding="utf-8") for name, path in named.items()}
