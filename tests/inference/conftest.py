"""A worker process that serves the stand-in in the place of a model; shallow models; the texts of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from convert.gguf_file import as_field, copied_fields, write_gguf
from convert.header import check_header
from convert.merge import merged_plans, merged_rows
from tests.inference.processes import ENTRY, HERE
from toolkit.base import find_base_gguf, load_base
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
def shallow_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The default base with the first two of its thirty layers alone, in a file type."""
    base = check_header(find_base_gguf(load_base("smollm2-135m")))
    kept = tuple(t for t in base.tensors if not t.name.startswith("blk.") or t.name.startswith(("blk.0.", "blk.1.")))
    folder = tmp_path_factory.mktemp("shallow")

    def path(file_type: str) -> Path:
        made = folder / f"{file_type}.gguf"
        if not made.exists():
            fields = copied_fields(base) | {"llama.block_count": as_field(2)}
            plans = merged_plans(replace(base, tensors=kept), file_type)
            write_gguf(made, "llama", fields, plans, lambda plan: merged_rows(base, plan.name, None))
        return made

    return path


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return bench_texts()
