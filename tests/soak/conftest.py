"""A small model with the default one's tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from convert.gguf_file import as_field, copied_fields, write_gguf
from convert.header import check_header
from convert.merge import merged_plans, merged_rows
from toolkit.base import find_base_gguf, load_base
from toolkit.inference.worker import WorkerModel


@pytest.fixture(scope="session")
def shallow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default base with the first of its thirty layers alone, in F32: fast, and equal in every batch."""
    base = check_header(find_base_gguf(load_base("smollm2-135m")))
    kept = tuple(t for t in base.tensors if not t.name.startswith("blk.") or t.name.startswith("blk.0."))
    fields = copied_fields(base) | {"llama.block_count": as_field(1)}
    path = tmp_path_factory.mktemp("shallow") / "shallow.gguf"
    plans = merged_plans(replace(base, tensors=kept), "F32")
    write_gguf(path, "llama", fields, plans, lambda plan: merged_rows(base, plan.name, None))
    return path


@pytest.fixture
def worker(shallow_model: Path) -> Iterator[WorkerModel]:
    with WorkerModel.load(shallow_model, threads=1) as model:
        yield model
