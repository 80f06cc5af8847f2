"""One run of `emotion-lrm data cot`: texts in, chains, refused chains and a report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from convert.files import replacing
from toolkit.contract.example import Example
from toolkit.corpora.clean import CleaningReport
from toolkit.corpora.cot import Corpus, CotConfig, CotReport, Reader, Refusal, write_chains
from toolkit.corpora.jsonl import to_row, write_examples
from toolkit.corpora.prepared import write_report
from toolkit.corpora.teacher import TemplateTeacher
from toolkit.corpora.teachers import Teacher

T = TypeVar("T")


def write_reasoning(
    corpus: Corpus,
    out: Path,
    config: CotConfig,
    teacher_for: Callable[[Reader], Teacher] = TemplateTeacher,
    notes: Sequence[str] = (),
    cleaning: CleaningReport | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, tuple[list[Example], CotReport]]:
    """Write ``NAME_cot_train.jsonl``, ``NAME_cot_val.jsonl``, the refused chains and the report into ``out``.

    Args:
        notes: sentences that the report shall carry, such as a licence.
        cleaning: how the texts were cleaned and which rows were damaged, for the report as well.

    Returns:
        for each split its chains and what became of the texts.
    """
    result = write_chains(corpus, config, teacher_for, progress)
    for split, (chains, _) in result.items():
        write_examples(out / f"{corpus.name}_cot_{split}.jsonl", chains)
    _write_refusals(
        out / f"{corpus.name}_cot_refused.jsonl", [r for _, report in result.values() for r in report.refusals]
    )
    reports: dict[str, Any] = {split: report.to_dict() for split, (_, report) in result.items()}
    if cleaning is not None:
        cleaned = cleaning.to_dict()
        reports |= {"damaged_rows": cleaned.pop("damaged_rows"), "cleaning": cleaned}
    write_report(out / f"{corpus.name}_cot_report.json", reports | ({"notes": list(notes)} if notes else {}))
    return result


def as_markdown(chains: Sequence[Example], refusals: Sequence[Refusal], count: int) -> Iterator[str]:
    """Lines of Markdown that show ``count`` chains, a third of them refused where there are so many.

    Labels take turns, so that many kinds are seen.
    """
    bad = _spread(refusals, lambda r: (r.reason, r.example.labels[0]), min(len(refusals), count // 3))
    good = _spread(chains, lambda c: (c.labels[0],), count - len(bad))
    yield "| text | argued label | chain as written | gate |"
    yield "|---|---|---|---|"
    for example in good:
        yield _line(example, example.reasoning or "", "kept")
    for refusal in bad:
        yield _line(refusal.example, refusal.reasoning, f"refused: {refusal.reason}")


def _line(example: Example, reasoning: str, verdict: str) -> str:
    cells = [example.text, example.labels[0], reasoning, verdict]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _spread(rows: Sequence[T], key: Callable[[T], tuple[str, ...]], count: int) -> list[T]:
    """The first ``count`` of ``rows`` when their kinds take turns."""
    seen: dict[tuple[str, ...], int] = {}
    turns: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        turn = seen.get(key(row), 0)
        seen[key(row)] = turn + 1
        turns.append((turn, place))
    return [rows[place] for _, place in sorted(turns)[:count]]


def _write_refusals(path: Path, refusals: Sequence[Refusal]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for refusal in refusals:
            row = to_row(refusal.example) | {"reasoning": refusal.reasoning, "refused": refusal.reason}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
