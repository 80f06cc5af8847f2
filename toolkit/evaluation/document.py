"""A report as a row of blocks, and the same blocks as one HTML page or as Markdown with pictures beside it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files import replacing

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing as two PNGs, for light and for dark pages, and its width in CSS pixels."""

    light: bytes
    dark: bytes
    width: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A section's heading."""

    words: str


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    words: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list of lines."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Headline figures: what each is called, its value as it is to stand there, and a small remark."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; numbers stand to the right, fractions with three decimals, None is a dash.

    Attributes:
        foreign: whether it holds texts of other people, which stay on the page and out of the Markdown.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, the name of its file, and words that say what it shows to those who don't see it."""

    name: str
    picture: Picture
    words: str


Block = Heading | Words | Points | Tiles | Table | Figure

_STYLE = """
:root { color-scheme: light dark; --ink: #20242a; --soft: #5b6570; --paper: #ffffff; --line: #d9dee4; --tile: #f4f6f8;
  --mark: #2f5d8a }
@media (prefers-color-scheme: dark) { :root { --ink: #dde2e8; --soft: #98a2ad; --paper: #16191d; --line: #343a42;
  --tile: #1f242a; --mark: #7fb2e5 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere } h2 { font-size: 1.2rem; margin-top: 2.4rem }
p, li { max-width: 44rem } figure { margin: 1rem 0 } .wide { overflow-x: auto } img { display: block; min-width: 30rem;
  max-width: 100%; height: auto } img.large { min-width: 46rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .7rem; margin: 1.2rem 0 }
.tiles div { background: var(--tile); border-radius: .5rem; padding: .6rem .9rem } .tiles b { display: block;
  font-size: 1.5rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere } .tiles span { color: var(--soft);
  font-size: .85rem; display: block }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .25rem 1rem .25rem 0; text-align: left;
  vertical-align: top } th { border-bottom: 2px solid var(--mark) } td { border-bottom: 1px solid var(--line) }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } table.foreign { width: 100% }
td.text { white-space: pre-wrap; overflow-wrap: break-word } table.foreign td.text:first-child { min-width: 15rem;
  overflow-wrap: anywhere }
"""
# Nothing may run and nothing may be fetched, whatever a text holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LARGE = 800


def write_document(folder: Path, title: str, blocks: Iterable[Block], told: Mapping[str, Any]) -> list[str]:
    """Write ``report.html``, ``report.md``, ``told`` as ``report.json``, and the pictures; returns their names.

    Raises:
        FileError: where the folder cannot be written.
    """
    blocks = list(blocks)
    pictures = write_pictures(folder, blocks)
    write_markdown(folder / "report.md", title, blocks)
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_html(folder / "report.html", title, blocks)
    return ["report.html", "report.md", "report.json", *pictures]


def write_html(path: Path, title: str, blocks: Iterable[Block]) -> None:
    """Write the page, whole or not at all."""
    body = "\n".join(map(_html, blocks))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{plain(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{plain(title)}</h1>\n{body}\n</body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode())


def write_markdown(path: Path, title: str, blocks: Iterable[Block]) -> None:
    """Write the same as Markdown; the pictures are those that :func:`write_pictures` leaves beside it."""
    with replacing(path) as temporary:
        temporary.write_text(f"# {_marked(title)}\n\n{as_markdown(blocks)}", encoding="utf-8")


def as_markdown(blocks: Iterable[Block]) -> str:
    """The blocks as Markdown, less the texts of other people."""
    return "\n\n".join(filter(None, map(_markdown, blocks))) + "\n"


def write_pictures(folder: Path, blocks: Iterable[Block]) -> list[str]:
    """Write every picture, as it looks on a light page; returns the names of the files."""
    figures = [block for block in blocks if isinstance(block, Figure)]
    for figure in figures:
        with replacing(folder / figure.name) as temporary:
            temporary.write_bytes(figure.picture.light)
    return [figure.name for figure in figures]


def plain(words: str) -> str:
    """Escaped for HTML, and without characters that no page may hold or that turn the reading direction."""
    return html.escape(_shown(words))


def _shown(words: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t\u200c\u200d" else "\ufffd" for c in words)


def _html(block: Block) -> str:
    match block:
        case Heading(words):
            return f"<h2>{plain(words)}</h2>"
        case Words(words):
            return f"<p>{plain(words)}</p>"
        case Points(lines):
            return f"<ul>{''.join(f'<li>{plain(line)}</li>' for line in lines)}</ul>"
        case Tiles(tiles):
            inner = "".join(f"<div>{plain(n)}<b>{plain(v)}</b><span>{plain(s)}</span></div>" for n, v, s in tiles)
            return f'<div class="tiles">{inner}</div>'
        case Table():
            return _html_table(block)
        case Figure(_, picture, words):
            size = "large" if picture.width > _LARGE else "small"
            return (
                '<figure class="wide"><picture>'
                f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark)}">'
                f'<img class="{size}" width="{picture.width}" src="{_data(picture.light)}" alt="{plain(words)}">'
                "</picture></figure>"
            )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _html_table(table: Table) -> str:
    numeric = figure_columns(table)
    top = "".join(map(_html_cell, ["th"] * len(numeric), table.header, numeric))
    lines = ("".join(map(_html_cell, ["td"] * len(numeric), row, numeric)) for row in table.rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    kind = ' class="foreign"' if table.foreign else ""
    return f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def figure_columns(table: Table) -> list[bool]:
    """Which columns hold figures alone, and so stand to the right."""
    return [all(_is_figure(row[column]) for row in table.rows) for column in range(len(table.header))]


def _is_figure(cell: Cell) -> bool:
    return not isinstance(cell, str) or re.fullmatch(r"[+-]?[\d.,]+( %)?|–", cell) is not None


def _html_cell(tag: str, cell: Cell, numeric: bool) -> str:
    told = plain(cell) if isinstance(cell, str) else figure(cell)
    return f'<{tag} class="number">{told}</{tag}>' if numeric else f'<{tag} class="text" dir="auto">{told}</{tag}>'


def figure(value: float | None) -> str:
    """A number as it stands in a table: whole ones with thousands apart, others with three decimals."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def between(interval: Sequence[float]) -> str:
    """An interval as it stands in a report."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _markdown(block: Block) -> str:
    match block:
        case Heading(words):
            return f"## {_marked(words)}"
        case Words(words):
            return _marked(words)
        case Points(lines):
            return "\n".join(f"- {_marked(line)}" for line in lines)
        case Tiles(tiles):
            return _markdown_table(("", "", ""), tiles)
        case Table(header, rows, foreign):
            return "" if foreign else _markdown_table(header, rows)
        case Figure(name, _, words):
            return f"![{_marked(words)}]({name})"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [header, *rows]
    cells = [[_marked(cell) if isinstance(cell, str) else figure(cell) for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _marked(words: str) -> str:
    """Words that Markdown and the HTML inside it leave as they are, on one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", re.sub(r"\s+", " ", _shown(words)))


def numbered(names: Sequence[str]) -> list[str]:
    """The names with a number behind each that stood there before, so that no two are alike."""
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


def thinned(values: Sequence[Mapping[str, float]], most: int = 101) -> list[Mapping[str, float]]:
    """At most so many of the values, evenly spread, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
