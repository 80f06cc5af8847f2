"""Rows of a data set on the Hugging Face hub, read from its Parquet branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import DataError

# Both corpora began as script data sets, which today's `datasets` refuses; the hub keeps their Parquet form on this
# branch, one folder for each configuration and split.
PARQUET = "refs/convert/parquet"
_ROWS = 1_024  # held in memory at once


def hub_rows(
    name: str, configuration: str, split: str, columns: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a split, one at a time, each with the words that name its place.

    The files are fetched once and kept in the hub's own cache, from which they are read without a network as well.

    Args:
        columns: those that must be there; further ones are handed on.

    Raises:
        DataError: where a package is missing, the hub gives nothing, a column is missing, or a file is damaged.
    """
    try:
        import pyarrow.parquet  # noqa: F401
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(
            f"No corpora folder was given, and the hub needs the package {error.name}.",
            'Set EMOTION_LRM_CORPORA or --source, or install ".[data]".',
        ) from None
    wanted = f"{configuration}/{split}/*.parquet"
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=PARQUET, allow_patterns=wanted)
    except Exception as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"The hub did not give {name}: {cause[0]}", "Check the network, or point --source at a local folder."
        ) from error
    files = sorted(Path(folder).glob(wanted))
    if not files:
        raise DataError(
            f"The hub has no {configuration}/{split} of {name}, or the network is down.",
            "Check the network, or point --source at a local folder.",
        )
    for path in files:
        place = f"{name}, {configuration}/{split}/{path.name}"
        yield from ((f"{place}, row {n}", row) for n, row in enumerate(parquet_rows(path, columns), 1))


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of one Parquet file in its order, read in small batches.

    Raises:
        DataError: where a column is missing, or the file is damaged.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                found = ", ".join(file.schema_arrow.names[:8]) or "none"
                raise DataError(f"{path} lacks the column {missing[0]!r}.", f"Its first columns are: {found}.")
            for batch in file.iter_batches(_ROWS):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged: {str(error).splitlines()[0]}", "Remove it, so that it is fetched again."
        ) from None
