"""Knowledge distillation (Hinton et al., 2015): another model's posterior joins the target of a labelled row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError
from toolkit.training.config import Distillation


def distilled(examples: Iterable[Example], wanted: Distillation, lens: Lens) -> Iterator[Example]:
    """The examples with ``share`` of their target from the readings, found by id; one without keeps its own.

    Raises:
        DataError: for readings that are missing or damaged, or where none is of these examples.
    """
    posteriors, found = read_posteriors(wanted.readings, lens), 0
    for example in examples:
        posterior = posteriors.get(example.id)
        if posterior is not None:
            found += 1
            own = example.target()
            mixed = {k: wanted.share * p + (1 - wanted.share) * own.get(k, 0.0) for k, p in posterior.items()}
            example = replace(example, soft=mixed)
        yield example
    if not found:
        raise DataError(
            f"{wanted.readings} has no reading of a row that is to be learned.",
            "Read the same split with `emotion-lrm batch`, and name its column of ids by --id-column.",
        )


def read_posteriors(path: Path, lens: Lens) -> dict[str, dict[str, float]]:
    """The posterior over the lens's labels by id, from JSON lines of `emotion-lrm batch`, without rows that failed.

    Raises:
        DataError: for a missing file or a damaged row, named by file and line.
    """
    labels = load_taxonomy(lens.native).labels
    found = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    if row["status"] == "ok":
                        found[str(row["id"])] = _posterior(row, labels)
                except (KeyError, TypeError, ValueError):
                    raise DataError(
                        f"{path}, line {number}, is no reading with a score for each label of {lens.native}.",
                        f"Write the file with `emotion-lrm batch --mode fast --lens {lens} -o FILE.jsonl`.",
                    ) from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None
    return found


def _posterior(row: dict[str, Any], labels: tuple[str, ...]) -> dict[str, float]:
    scores = {label: float(row["scores"][label]) for label in labels}
    total = sum(scores.values())
    if not 0 < total < math.inf or min(scores.values()) < 0:
        raise ValueError(total)
    return {label: score / total for label, score in scores.items()}
