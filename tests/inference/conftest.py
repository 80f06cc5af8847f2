"""A worker process that serves the stand-in in the place of a model; the texts of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.inference.processes import ENTRY, HERE
from toolkit.benchmark.measure import bench_texts
from toolkit.inference import supervisor
from toolkit.inference.worker import WorkerModel


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(supervisor, "ENTRY", ENTRY)


@pytest.fixture
def worker(stand_in: None) -> Iterator[WorkerModel]:  # noqa: ARG001
    with WorkerModel.load() as model:
        yield model


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return bench_texts()
