"""What a model says of itself, found without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.header import check_header, read_header
from toolkit.apps.models import megabytes
from toolkit.assets import asset
from toolkit.base import load_base
from toolkit.contract.lens import Lens, parse_lens
from toolkit.inference.store import ShippedModel, installed, load_shipped, locate, model_path, names_file, parse_name
from toolkit.settings import Settings

FIGURES = ("what", "split", "rows", "accuracy", "macro-F1", "calibration error")


@dataclass(frozen=True, slots=True)
class Card:
    """A model before it is loaded.

    Attributes:
        facts: names and values for a person.
        figures: rows under ``FIGURES``; empty where none were written down.
        measured: when and where the figures were measured.
        words: the model card as Markdown, without its heading; empty for a file of somebody else.
    """

    name: str
    lenses: tuple[Lens, ...]
    facts: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, ...], ...] = ()
    measured: str = ""
    words: str = ""


def choices() -> list[str]:
    """The models to choose from: those that ship, then other built ones of the cache folder."""
    shipped = list(load_shipped().models)
    usual = {model_path(name).stem for name in shipped}
    return shipped + [str(model.path) for model in installed() if model.name not in usual]


def card_of(name: str | None) -> Card:
    """The card of a model: a shipped one by its name, with a file type or without, or a GGUF file.

    Raises:
        ModelError: for an unknown name or a missing file.
        ConvertError: for a file that is no sound GGUF.
    """
    if name and names_file(name):
        return _card_of_file(locate(name))
    known, file_type = parse_name(name)
    return _card_of_shipped(known, file_type, load_shipped().models[known])


def known_lenses(settings: Settings) -> tuple[str, ...]:
    """What can be asked for: ``author``, ``reader`` and ``both``, as far as the model knows them.

    Where no model was chosen, every shipped one counts, for each of them is taken for the lenses that it knows.

    Raises:
        ModelError, ConvertError: as :func:`card_of`.
    """
    own = _own(read_header(settings.adapter).metadata) if settings.adapter else {}
    if "lenses" in own:
        sets = [set(_lenses(own))]
    elif settings.model or settings.adapter:
        sets = [set(card_of(settings.model).lenses)]
    else:
        sets = [set(model.lenses) for model in load_shipped().models.values()]
    single = [str(lens) for lens in Lens if any(lens in known for known in sets)]
    return (*single, "both") if any(known >= set(Lens) for known in sets) else tuple(single)


def _card_of_shipped(name: str, file_type: str, shipped: ShippedModel) -> Card:
    path, base = model_path(f"{name}-{file_type.lower()}"), load_base(shipped.base)
    folder = asset("models", "adapters", shipped.adapter)
    there = (
        f"{path}, {megabytes(path.stat().st_size)}" if path.is_file() else "not built yet; the first reading builds it"
    )
    facts = (
        ("lenses", ", ".join(shipped.lenses)),
        ("learned from", ", ".join(shipped.datasets)),
        ("licence", shipped.licence),
        ("base", f"{base.model_id} ({base.licence})"),
        ("file type", file_type),
        ("file", there),
    )
    figures, measured = _figures(folder / "metrics.json")
    return Card(name, tuple(shipped.lenses), facts, figures, measured, _words(folder / "README.md"))


def _card_of_file(path: Path) -> Card:
    header = check_header(path).metadata
    own = _own(header)
    lenses = _lenses(own)
    found = {
        "name": own.get("name") or header.get("general.name"),
        "lenses": list(map(str, lenses)),
        "learned from": own.get("datasets"),
        "licence": own.get("licence") or header.get("general.license"),
        "base": own.get("base") or header.get("general.architecture"),
        "file": f"{path}, {megabytes(path.stat().st_size)}",
        "made by Emotion-LRM": "" if own else "no: it may not understand the question it is asked",
    }
    facts = tuple((name, _said(value)) for name, value in found.items() if value)
    return Card(path.stem, lenses, facts)


def _own(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What this project wrote into a file."""
    return {key.removeprefix("emotion_lrm."): v for key, v in metadata.items() if key.startswith("emotion_lrm.")}


def _lenses(own: Mapping[str, Any]) -> tuple[Lens, ...]:
    told = own.get("lenses", ["author"])
    return tuple(map(parse_lens, json.loads(told) if isinstance(told, str) else told))


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _figures(path: Path) -> tuple[tuple[tuple[str, ...], ...], str]:
    """The rows of ``metrics.json`` that are figures of a protocol, and when and where they were measured."""
    if not path.is_file():
        return (), ""
    told = json.loads(path.read_text(encoding="utf-8"))
    found = [(name, row) for name, row in told.get("figures", {}).items() if isinstance(row, dict) and "ece" in row]
    about = " on ".join(str(told[key]) for key in ("date", "machine") if key in told)
    return tuple(_figure_row(name, row) for name, row in found), f"Measured {about}." if about else ""


def _figure_row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    low_high = (figures.get("intervals") or {}).get("accuracy")
    between = f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
    values = [
        "–" if figures.get(key) is None else f"{figures[key]:.3f}{between if key == 'accuracy' else ''}"
        for key in ("accuracy", "macro_f1", "ece")
    ]
    return name, str(figures.get("split") or "–"), f"{figures.get('n', 0):,}", *values


def _words(path: Path) -> str:
    """The model card less its front matter, its first heading and its figures, which stand in a table of their own."""
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    if text.startswith("---\n"):
        text = text[4:].partition("\n---\n")[2]
    sections = text.strip().split("\n## ")
    first = sections[0].partition("\n")[2] if sections[0].startswith("# ") else sections[0]
    kept = [part for part in sections[1:] if not part.startswith("Figures")]
    return "\n#### ".join([first.strip() + "\n", *kept])
