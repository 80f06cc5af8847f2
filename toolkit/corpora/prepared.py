"""What `emotion-lrm data prepare` leaves in its folder: clean rows, their flags, and a report; whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convert.errors import ConvertError
from convert.files import replacing, sha256_of
from toolkit import __version__
from toolkit.contract.example import Example
from toolkit.corpora import figures
from toolkit.corpora.agreement import VOTES
from toolkit.corpora.clean import SHOWN
from toolkit.corpora.cleaning_page import write_cleaning_page
from toolkit.corpora.goemotions import SPLITS, find_split, resolve_source
from toolkit.corpora.jsonl import write_examples
from toolkit.corpora.linguistic import SCORES, Check
from toolkit.corpora.prepare import DataConfig, clean_training, flag
from toolkit.corpora.ratings import find_ratings
from toolkit.corpora.tables import find_file

ROWS, FLAGS = "goemotions_clean.jsonl", "goemotions_clean_flags.jsonl"
REPORT, PAGE = "goemotions_clean_report.json", "goemotions_clean_report.html"


def prepare(
    config: DataConfig, source: Path | None, out: Path, limit: int | None = None
) -> tuple[dict[str, Any], bool]:
    """Write the clean training rows, their flags, and the report as JSON and as a page into ``out``.

    The same source, configuration and limit give the same bytes. Where ``out`` already holds what they give, nothing
    is done again.

    Returns:
        the report, and whether it was there before.

    Raises:
        DataError: where the corpus is missing, as :func:`~toolkit.corpora.prepare.clean_training` says.
    """
    figures.require_matplotlib()
    key = _fingerprint(config, source, limit)
    before = _finished(out, key)
    if before is not None:
        return before, True
    examples, counted = clean_training(config, source, limit)
    checks = flag(examples, config.linguistic) if config.linguistic.check else []
    write_examples(out / ROWS, examples)
    _write_flags(out / FLAGS, examples, checks)
    flags = _flag_counts(examples, checks)
    write_cleaning_page(out / PAGE, counted, flags)
    hashes = {name: sha256_of(out / name) for name in (ROWS, FLAGS, PAGE)}
    report = counted.to_dict() | {"flags": flags, "fingerprint": key, "sha256": hashes}
    write_report(out / REPORT, report)  # last: it says that all the others are whole
    return report, False


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _fingerprint(config: DataConfig, source: Path | None, limit: int | None) -> str | None:
    """What the result hangs on, in 64 digits; None from the hub, whose copy may change."""
    folder = resolve_source(source)
    if folder is None:
        return None
    splits = [find_split(folder, split) for split in SPLITS]
    files = [*splits, *find_ratings(folder), find_file([folder / "goemotions"], VOTES)]
    hashes = [sha256_of(path) if path else "" for path in files]
    settings = config.model_dump_json(exclude={"cot"})
    return hashlib.sha256("|".join([__version__, settings, str(limit), *hashes]).encode()).hexdigest()


def _finished(out: Path, key: str | None) -> dict[str, Any] | None:
    """The report of an earlier run with this key, where all that it wrote is still there unchanged."""
    try:
        report: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
        whole = all(sha256_of(out / name) == digest for name, digest in report["sha256"].items())
        same = key is not None and report["fingerprint"] == key
    except (OSError, ConvertError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return report if whole and same else None


def _write_flags(path: Path, examples: Sequence[Example], checks: Sequence[Check]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for example, check in zip(examples, checks, strict=bool(checks)):
            file.write(json.dumps(check.to_row(example)) + "\n")


def _flag_counts(examples: Sequence[Example], checks: Sequence[Check]) -> dict[str, dict[str, Any]]:
    """For each flag how many texts bear it, and those with the highest scores."""
    counts: dict[str, dict[str, Any]] = {}
    for name in SCORES if checks else ():
        hits = [(c.scores[name], e.text) for e, c in zip(examples, checks, strict=True) if name in c.flags]
        first = sorted(hits, key=lambda hit: -hit[0])[:SHOWN]
        counts[name] = {"count": len(hits), "examples": [text for _, text in first]}
    return counts
