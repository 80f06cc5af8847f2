"""A stand-in served in the place of a model; models too narrow to take any time; the texts of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from convert.gguf_file import TensorPlan, as_field, copied_fields, write_gguf
from convert.header import check_header
from tests.inference.processes import ENTRY, HERE
from toolkit.base import find_base_gguf, load_base
from toolkit.benchmark.measure import bench_texts
from toolkit.inference import supervisor
from toolkit.inference.worker import WorkerModel

WIDTH = 64  # one head


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


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of one layer under the vocabulary of the default base."""
    return write_narrow(tmp_path_factory.mktemp("narrow") / "narrow.gguf", "llama", {"block_count": 1}, ())


@pytest.fixture(scope="session")
def narrow_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with six layers of Gemma 3, five of which look back 512 tokens through a cache of their own."""
    sizes = {"block_count": 6, "attention.key_length": WIDTH, "attention.value_length": WIDTH}
    norms = ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm")
    return write_narrow(
        tmp_path_factory.mktemp("gemma") / "narrow.gguf", "gemma3", {**sizes, "attention.sliding_window": 512}, norms
    )


def write_narrow(path: Path, architecture: str, sizes: Mapping[str, int], norms: tuple[str, ...]) -> Path:
    """A GGUF of one head with the tensors of a Llama's layer and ``norms`` besides."""
    base, random = check_header(find_base_gguf(load_base("smollm2-135m"))), np.random.default_rng(0)
    common = {"embedding_length": WIDTH, "feed_forward_length": WIDTH, "rope.dimension_count": WIDTH}
    common |= {"attention.head_count": 1, "attention.head_count_kv": 1}
    kept = [t for t in base.tensors if t.name.startswith(("blk.0.", "token_embd", "output_norm"))]
    vocabulary = kept[0].shape[0]
    shapes = {t.name: tuple(n if n == vocabulary else WIDTH for n in t.shape) for t in kept}
    shapes |= {f"blk.0.{norm}.weight": (WIDTH,) for norm in norms}
    plans = [
        TensorPlan(name.replace("blk.0.", f"blk.{layer}."), "F32", shape)
        for name, shape in shapes.items()
        for layer in range(sizes["block_count"] if name.startswith("blk.") else 1)
    ]
    fields = {name.replace("llama.", f"{architecture}."): value for name, value in copied_fields(base).items()}
    fields |= {f"{architecture}.{name}": as_field(size) for name, size in {**common, **sizes}.items()}
    write_gguf(path, architecture, fields, plans, lambda plan: [random.normal(0, 0.3, plan.shape).astype(np.float32)])
    return path
