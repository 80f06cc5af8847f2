"""One HTML page that needs nothing beside it: headings, words, tables, and pictures inside the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from convert.files import replacing

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .25rem .8rem .25rem 0; text-align: left }
th { border-bottom: 2px solid #2f5d8a } td { border-bottom: 1px solid #ddd; vertical-align: top }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } img { max-width: 100% }
td.text { white-space: pre-wrap; overflow-wrap: anywhere } td ul { margin: 0; padding: 0; list-style: none }
td li + li { margin-top: .3rem }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #16191d } img { background: white } }
"""
Cell = str | int | float | Sequence[str]
# Nothing may run and nothing may be fetched, whatever a corpus text holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def heading(words: str) -> str:
    """A section's heading."""
    return f"<h2>{_plain(words)}</h2>"


def paragraph(words: str) -> str:
    """A paragraph."""
    return f"<p>{_plain(words)}</p>"


def picture(png: bytes, words: str) -> str:
    """A picture inside the page; ``words`` say what it shows to those who don't see it."""
    data = base64.b64encode(png).decode()
    return f'<p><img src="data:image/png;base64,{data}" alt="{_plain(words)}"></p>'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; numbers and their heads stand to the right, whole ones with thousands apart; lists go line by line."""
    rows = list(rows)
    numbers = [isinstance(cell, int | float) for cell in rows[0]] if rows else [False] * len(header)
    top = "".join(
        f'<th class="number">{_plain(cell)}</th>' if number else f"<th>{_plain(cell)}</th>"
        for cell, number in zip(header, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table>"


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write the page of these parts, whole or not at all."""
    body = "\n".join(parts)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_plain(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{_plain(title)}</h1>\n{body}\n</body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f'<td class="text">{_plain(cell)}</td>'
    if isinstance(cell, Sequence):
        return f'<td class="text"><ul>{"".join(f"<li>{_plain(line)}</li>" for line in cell)}</ul></td>'
    return f'<td class="number">{cell:,}</td>' if isinstance(cell, int) else f'<td class="number">{cell:.3f}</td>'


def _plain(words: str) -> str:
    """Escaped, and without characters that no HTML page may hold or that turn the reading direction."""
    kept = (c if c.isprintable() or c in "\n\t\u200d" else "\ufffd" for c in words)
    return html.escape("".join(kept))
