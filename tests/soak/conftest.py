"""A small model with the default one's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.inference.worker import WorkerModel


@pytest.fixture(scope="session")
def shallow_model(shallow_path: Callable[..., Path]) -> Path:
    """One layer in F32: fast, and equal in every batch."""
    return shallow_path("F32", layers=1)


@pytest.fixture
def worker(shallow_model: Path) -> Iterator[WorkerModel]:
    with WorkerModel.load(shallow_model, threads=1) as model:
        yield model
