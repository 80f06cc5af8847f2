"""A GGUF-LoRA on the base reads as the merged model does, and can be swapped while the engine lives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGUFValueType
from gguf.gguf_writer import GGUFValue

from convert.errors import GGUFError
from convert.gguf_file import TensorPlan, as_field, own_fields, write_gguf
from convert.gguf_lora import adapter_to_gguf
from convert.logits import Evaluator
from toolkit import EmotionModel
from toolkit.assets import asset
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference.engine import Engine
from toolkit.inference.native import NativeAdapter
from toolkit.settings import open_model, resolve

pytestmark = pytest.mark.real
CLOSE = 0.05  # the base is Q4_1 and multiplied as such; the merged model is rounded once more


@pytest.fixture(scope="module")
def base() -> Path:
    return find_base_gguf(load_base("smollm2-135m"))


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_to_gguf(base, asset("models", "adapters", "author"), tmp_path_factory.mktemp("lora") / "author.gguf")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:60]]


@pytest.fixture(scope="module")
def adapted(base: Path, lora: Path) -> Iterator[Engine]:
    engine = Engine(base, lora=lora)
    yield engine
    engine.close()


def posteriors(engine: Engine, texts: list[str]) -> np.ndarray:
    return np.stack([reading.posterior for reading in engine.read(texts, Lens.AUTHOR)])


def test_base_and_adapter_read_as_the_merged_model(
    adapted: Engine, default_model: EmotionModel, texts: list[str]
) -> None:
    ours, merged = posteriors(adapted, texts), posteriors(default_model.engine, texts)  # type: ignore[arg-type]
    assert np.abs(ours - merged).mean() < 0.003
    assert (ours.argmax(1) == merged.argmax(1)).mean() >= 0.95
    clear = np.sort(merged, axis=1)[:, -1] - np.sort(merged, axis=1)[:, -2] > 2 * CLOSE
    assert (ours.argmax(1) == merged.argmax(1))[clear].all()


def test_swapping_changes_the_readings_and_back(adapted: Engine, lora: Path, texts: list[str]) -> None:
    before = posteriors(adapted, texts[:12])
    adapted.swap(None)
    bare = posteriors(adapted, texts[:12])
    adapted.swap(lora)
    assert np.abs(bare - before).max() > 0.2
    assert posteriors(adapted, texts[:12]) == pytest.approx(before, abs=1e-3)


def test_another_file_is_refused_and_the_old_one_stays(adapted: Engine, base: Path, texts: list[str]) -> None:
    before = posteriors(adapted, texts[:4])
    with pytest.raises(ModelError, match="no LoRA adapter"):
        adapted.swap(base)
    assert posteriors(adapted, texts[:4]) == pytest.approx(before, abs=1e-3)


def write_lora(path: Path, architecture: str = "llama", width: int = 576, **told: str) -> Path:
    """A GGUF-LoRA that changes nothing: one matrix, with B all zeros."""
    fields = own_fields({"general.type": "adapter", **told})
    fields |= {"adapter.type": as_field("lora"), "adapter.lora.alpha": GGUFValue(8.0, GGUFValueType.FLOAT32)}
    shapes = {"blk.0.attn_q.weight.lora_a": (4, width), "blk.0.attn_q.weight.lora_b": (width, 4)}
    plans = [TensorPlan(name, "F32", shape) for name, shape in shapes.items()]
    write_gguf(path, architecture, fields, plans, lambda plan: [np.zeros(plan.shape, np.float32)])
    return path


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "base of the same shape": ({"base_sha256": "0" * 64}, "was made for another base"),
    "shape": ({"width": 64}, r"does not fit this model: blk\.0\.attn_q\.weight\.lora_a"),
    "architecture": ({"architecture": "qwen2"}, "is an adapter for qwen2 models"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_adapter_of_another_model_is_refused(adapted: Engine, tmp_path: Path, other: str) -> None:
    made, words = OTHERS[other]
    with pytest.raises(ModelError, match=words) as caught:
        NativeAdapter(adapted.model, write_lora(tmp_path / "other.gguf", **made))
    assert caught.value.hint


def test_an_adapter_is_taken_for_its_base_for_what_was_merged_from_it_and_where_it_names_none(
    adapted: Engine, default_model: EmotionModel, lora: Path, tmp_path: Path
) -> None:
    NativeAdapter(adapted.model, lora)
    NativeAdapter(default_model.engine.model, lora)  # type: ignore[attr-defined]
    NativeAdapter(adapted.model, write_lora(tmp_path / "silent.gguf"))


def test_a_damaged_adapter_never_reaches_native_code(base: Path, lora: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(lora.read_bytes()[:-100])
    with pytest.raises(GGUFError, match="truncated"):
        Evaluator(base, adapter=damaged)


def test_the_flag_reaches_the_engine(base: Path, lora: Path) -> None:
    settings = resolve({"model": str(base), "adapter": str(lora)}, {})
    with open_model(settings) as model:
        found = model.analyze("Thank you so much!")
    assert found.emotion == "gratitude"
    assert found.model == f"{base.stem}+author"
    assert found.reasoning
