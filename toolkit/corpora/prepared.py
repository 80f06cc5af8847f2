"""What `emotion-lrm data prepare` leaves in its folder: clean rows in all and in parts, flags, and a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convert.errors import ConvertError
from convert.files import replacing, sha256_of
from toolkit import __version__
from toolkit.assets import asset
from toolkit.contract.example import Example
from toolkit.corpora import figures
from toolkit.corpora.agreement import VOTES
from toolkit.corpora.checks import Check, drop_flagged
from toolkit.corpora.clean import SHOWN
from toolkit.corpora.cleaning_page import write_cleaning_page
from toolkit.corpora.embeddings import Progress, model_identity, require_embedding_packages
from toolkit.corpora.goemotions import SPLITS, find_split, resolve_source
from toolkit.corpora.jsonl import write_examples
from toolkit.corpora.prepare import DataConfig, check_rows, clean_rows
from toolkit.corpora.ratings import find_ratings
from toolkit.corpora.split import split
from toolkit.corpora.tables import find_file

ROWS, FLAGS = "goemotions_clean.jsonl", "goemotions_clean_flags.jsonl"
TRAIN, VAL = "goemotions_clean_train.jsonl", "goemotions_clean_val.jsonl"
REPORT, PAGE = "goemotions_clean_report.json", "goemotions_clean_report.html"
CACHE = "embeddings"
# Beside the configuration these word lists decide which rows stay and which flags they bear; so do the taxonomies.
_RULES = (
    ("data", "configs", "flags.yaml"),
    ("data", "configs", "languages.yaml"),
    ("prompts", "teacher", "words.yaml"),
)


def prepare(
    config: DataConfig, source: Path | None, out: Path, limit: int | None = None, progress: Progress | None = None
) -> tuple[dict[str, Any], bool]:
    """Write the clean training rows, their parts for training and validation, their flags, and the report into ``out``.

    The same source, configuration and limit give the same bytes. Where ``out`` already holds what they give, nothing
    is done again; a run that was killed finds the embeddings that it had computed.

    Args:
        progress: told how many texts are embedded, where the configuration asks for that.

    Returns:
        the report, and whether it was there before.

    Raises:
        DataError: where the corpus is missing, as :func:`~toolkit.corpora.prepare.clean_training` says.
        EmotionLRMError: where a package that the configuration needs is missing.
    """
    figures.require_matplotlib()
    if config.embeddings.check or config.embeddings.drop:
        require_embedding_packages()
    key = _fingerprint(config, source, limit)
    before = _finished(out, key)
    if before is not None:
        return before, True
    examples, counted = clean_rows(config, source, limit)
    checks = check_rows(examples, config, out / CACHE, progress)
    examples, checks = drop_flagged(examples, checks, counted, config.unwanted())
    parts = dict(zip((TRAIN, VAL), split(examples, config.split), strict=True))
    for name, rows in {ROWS: examples, **parts}.items():
        write_examples(out / name, rows)
    _write_flags(out / FLAGS, examples, checks)
    flags = _flag_counts(examples, checks)
    write_cleaning_page(out / PAGE, counted, flags, parts)
    hashes = {name: sha256_of(out / name) for name in (ROWS, TRAIN, VAL, FLAGS, PAGE)}
    sizes = {name: len(rows) for name, rows in parts.items()}
    report = counted.to_dict() | {"flags": flags, "parts": sizes, "fingerprint": key, "sha256": hashes}
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
    rules = [*(asset(*parts) for parts in _RULES), *sorted(asset("prompts", "taxonomies").glob("*.yaml"))]
    files = [*splits, *find_ratings(folder), find_file([folder / "goemotions"], VOTES), *rules]
    hashes = [sha256_of(path) if path else "" for path in files]
    settings = config.model_dump_json(exclude={"cot"})
    embedded = config.embeddings.check or config.embeddings.drop
    model = model_identity(config.embeddings.model) if embedded else ""
    return hashlib.sha256("|".join([__version__, settings, str(limit), model, *hashes]).encode()).hexdigest()


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
            file.write(json.dumps(check.to_row(example), ensure_ascii=False) + "\n")


def _flag_counts(examples: Sequence[Example], checks: Sequence[Check]) -> dict[str, dict[str, Any]]:
    """For each flag how many texts bear it, and those with the highest scores, with the note on each."""
    counts: dict[str, dict[str, Any]] = {}
    for name in checks[0].scores if checks else ():
        hits = [(check, e.text) for e, check in zip(examples, checks, strict=True) if name in check.flags]
        first = sorted(hits, key=lambda hit: -hit[0].scores[name])[:SHOWN]
        rows = [
            {"text": text, "score": round(check.scores[name], 4), "note": check.notes.get(name, "")}
            for check, text in first
        ]
        counts[name] = {"count": len(hits), "examples": rows}
    return counts
