"""Rows of a data set on the Hugging Face hub, read from its Parquet branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.errors import DataError

# Both corpora are script data sets, which today's `datasets` refuses; the hub keeps their Parquet form on this branch.
PARQUET = "refs/convert/parquet"


def hub_rows(name: str, configuration: str, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split, one at a time from the copy that ``datasets`` keeps on disk.

    Raises:
        DataError: where the package is missing or the hub gives nothing.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            "No corpora folder was given, and the hub needs the package datasets.",
            'Set EMOTION_LRM_CORPORA or --source, or install ".[data]".',
        ) from None
    try:
        rows = load_dataset(name, configuration, split=split, revision=PARQUET)
    except Exception as error:
        raise DataError(
            f"The hub did not give {name}: {error}.", "Check the network, or point --source at a local folder."
        ) from error
    yield from rows
