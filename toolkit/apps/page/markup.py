"""Readings and counts as HTML. Whatever comes from outside is escaped, and hidden characters become visible."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from toolkit.apps.escape import escaped, is_hidden, visible
from toolkit.apps.panel import evidence_spans, notes, percent, tone, window
from toolkit.contract.analysis import Analysis, Comparison, Divergence
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy

TOP = 5
LENS_NAMES = {Lens.AUTHOR: "Author’s lens", Lens.READER: "Reader’s lens"}


def foreign(text: str) -> str:
    """Text of somebody else, to stand between tags or in an attribute."""
    return html.escape(visible(text))


def reading(analysis: Analysis) -> str:
    """One analysis: label, bars, reasoning, and the text with its evidence."""
    said = f'<p class="reasoning">{foreign(analysis.reasoning)}</p>' if analysis.reasoning else ""
    return (
        f'<article class="reading {tone(analysis)}" aria-label="{LENS_NAMES[analysis.lens]}">'
        f"{_heading(analysis)}{_bars(analysis)}{said}{_quotation(analysis)}"
        f'<p class="small">{foreign(analysis.model)} · {load_taxonomy(analysis.taxonomy).title}</p></article>'
    )


def comparison(found: Comparison) -> str:
    """Both readings side by side, under them how far they part."""
    return f'{parting(found.divergence)}<div class="pair">{reading(found.author)}{reading(found.reader)}</div>'


def parting(divergence: Divergence) -> str:
    """The divergence as a sentence and, where the lenses can be compared, on a scale with the noise line."""
    scale = ""
    if divergence.score is not None:
        line, told = "", ""
        if divergence.noise_line is not None:
            line = f'<span class="line" style="left:{_width(divergence.noise_line)}"></span>'
            told = f'<span style="left:{_width(divergence.noise_line)}">noise</span>'
        scale = (
            f'<div class="scale" aria-hidden="true"><span class="track"><span class="fill" '
            f'style="width:{_width(divergence.score)}"></span></span>{line}</div>'
            f'<div class="ends" aria-hidden="true"><span>alike</span>{told}<span>apart</span></div>'
        )
    return (
        f'<section class="parting" aria-label="Divergence"><h2>{html.escape(divergence.summary)}</h2>{scale}'
        '<p class="small">The lenses learned from different corpora, so a difference between them contains one '
        "between the corpora. It says nothing about what anybody meant.</p></section>"
    )


def problem(cause: str, hint: str = "") -> str:
    """A failure: what went wrong and the next step."""
    step = f"<span>{foreign(hint)}</span>" if hint else ""
    return f'<div class="problem" role="alert"><b>{foreign(cause)}</b>{step}</div>'


def remark(words: str) -> str:
    """A line of small print; ``words`` may come from outside."""
    return f'<p class="small">{foreign(words)}</p>'


def counts(title: str, found: Mapping[str, int], limit: int = 12) -> str:
    """How often each label was the most probable one, the most frequent first."""
    total = max(sum(found.values()), 1)
    ranked = sorted(found.items(), key=lambda item: -item[1])
    rows = [(label, n / total, f"{n:,}") for label, n in ranked[:limit]]
    widest = max((share for _, share, _ in rows), default=1.0)
    more = f'<p class="small">and {len(ranked) - limit} rarer labels</p>' if len(ranked) > limit else ""
    listed = "".join(_row(label, share / widest, f"{value} · {percent(share)}", True) for label, share, value in rows)
    return f'<section class="chart"><h3>{html.escape(title)}</h3><ol class="bars wide">{listed}</ol>{more}</section>'


def histogram(title: str, steps: Sequence[int], ends: tuple[str, str]) -> str:
    """Equal steps from 0 to 1 as columns; ``ends`` say what the two ends mean."""
    highest, size = max([*steps, 1]), len(steps)
    columns = "".join(
        f'<span style="height:{_width(n / highest)}" title="{i / size:.2f} to {(i + 1) / size:.2f}: {n:,}"></span>'
        for i, n in enumerate(steps)
    )
    middle = _median(steps)
    told = f"{sum(steps):,} texts, at least half of them at {middle:.2f} or more" if sum(steps) else "no text"
    return (
        f'<section class="chart"><h3>{html.escape(title)}</h3><div class="columns" role="img" aria-label="{told}">'
        f'{columns}</div><div class="ends" aria-hidden="true"><span>{ends[0]}</span><span>{ends[1]}</span></div>'
        f'<p class="small">{told}</p></section>'
    )


def tiles(found: Iterable[tuple[str, str]]) -> str:
    """Headline figures: what each is called and its value."""
    shown = "".join(f"<div><b>{foreign(value)}</b><span>{foreign(name)}</span></div>" for name, value in found)
    return f'<div class="tiles">{shown}</div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values under each other."""
    shown = "".join(f"<dt>{foreign(name)}</dt><dd>{foreign(value)}</dd>" for name, value in rows)
    return f'<dl class="facts">{shown}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A small table whose cells, after the first of a row, stand to the right."""
    head = "".join(f'<th scope="col">{foreign(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{foreign(row[0])}</th>{"".join(f"<td>{foreign(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide-table" tabindex="0" role="region" aria-label="{foreign(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{remark(caption)}"
    )


def lines(texts: Iterable[str], longest: int = 160) -> str:
    """The beginnings of some texts, one a line."""
    shown = "".join(
        f'<li dir="auto">{foreign(t[:longest])}{"…" if len(t) > longest else ""}</li>' for t in texts if t.strip()
    )
    return f'<ol class="preview">{shown}</ol>'


def _heading(analysis: Analysis) -> str:
    share = percent(analysis.confidence)
    meaning = load_taxonomy(analysis.taxonomy).definition(analysis.emotion)
    if analysis.abstained:
        title = f"<h2>no clear emotion</h2><p>closest: {html.escape(analysis.emotion)}, {share}</p>"
    else:
        title = f"<h2>{html.escape(analysis.emotion)} <b>{share}</b></h2>"
    told = "".join(f'<p class="small">{html.escape(note)}</p>' for note in notes(analysis))
    return f'<p class="lens">{LENS_NAMES[analysis.lens]}</p>{title}<p class="meaning">{html.escape(meaning)}</p>{told}'


def _bars(analysis: Analysis) -> str:
    ranked = sorted(analysis.scores.items(), key=lambda item: -item[1])
    rows = [_row(label, share, percent(share), label in analysis.emotions) for label, share in ranked]
    rest = ""
    if len(rows) > TOP:
        rest = (
            f'<details><summary>all {len(rows)} labels</summary><ol class="bars">{"".join(rows[TOP:])}</ol></details>'
        )
    return f'<ol class="bars">{"".join(rows[:TOP])}</ol>{rest}'


def _row(label: str, share: float, value: str, strong: bool) -> str:
    return (
        f'<li class="{"strong" if strong else "weak"}"><span class="name">{foreign(label)}</span>'
        f'<span class="track" aria-hidden="true"><span class="fill" style="width:{_width(share)}"></span></span>'
        f'<span class="share">{value}</span></li>'
    )


def _quotation(analysis: Analysis) -> str:
    """The text, or an excerpt around the first evidence, with the evidence marked."""
    text, spans = analysis.text, evidence_spans(analysis.text, analysis.evidence)
    begin, end = window(text, spans)
    pieces, position = ["… " if begin else ""], begin
    for start, stop in [*(span for span in spans if span[1] <= end), (end, end)]:
        pieces.append(_shown(text[position:start]))
        if stop > start:
            pieces.append(f"<mark>{_shown(text[start:stop])}</mark>")
        position = stop
    more = f'<span class="small"> … ({len(text):,} characters in all)</span>' if end - begin < len(text) else ""
    return f'<blockquote dir="auto">{"".join(pieces)}{more}</blockquote>'


def _shown(piece: str) -> str:
    return "".join(_runs(piece.replace("\r\n", "\n")))


def _runs(piece: str) -> Iterator[str]:
    for hidden, run in groupby(piece, is_hidden):
        if hidden:
            yield f'<span class="hidden">{html.escape("".join(map(escaped, run)))}</span>'
        else:
            yield html.escape("".join(run))


def _width(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def _median(steps: Sequence[int]) -> float:
    """The lower bound of the step in which the middle text lies."""
    half, seen = sum(steps) / 2, 0
    for number, n in enumerate(steps):
        seen += n
        if seen >= half:
            return number / len(steps)
    return 0.0
