"""The unmerged adapter in transformers and the merged model in the engine read alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convert.errors import AdapterError
from convert.merge import merge_adapter
from toolkit import EmotionModel
from toolkit.assets import asset
from toolkit.base import find_base_gguf, load_base
from toolkit.errors import ModelError, UsageError
from toolkit.inference.native import NativeModel
from toolkit.inference.store import build_metadata, load_shipped
from toolkit.inference.transformers_backend import TransformersEngine, load_unmerged
from toolkit.settings import open_model, resolve

# The engine keeps keys and values in 16 bits, which moves a logit by about 2^-11 of its size, some hundredths; a
# probability p moves by p (1 - p) times that at most.
CLOSE = 0.02


@pytest.fixture(scope="module")
def unmerged() -> Iterator[EmotionModel]:
    with load_unmerged(threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmotionModel]:
    """The same adapter merged, all weights as 32-bit floats, in the engine."""
    shipped = load_shipped()
    model = shipped.models[shipped.default]
    base = load_base(model.base)
    path = tmp_path_factory.mktemp("exact") / "exact.gguf"
    metadata = build_metadata(shipped.default, model, base)
    merge_adapter(find_base_gguf(base), asset("models", "adapters", model.adapter), path, "F32", metadata)
    with EmotionModel.load(path) as loaded:
        yield loaded


def sample_texts(n: int) -> list[str]:
    lines = asset("data", "samples", "golden.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:n]]


@pytest.mark.real
def test_posteriors_agree(unmerged: EmotionModel, exact: EmotionModel) -> None:
    texts = [*sample_texts(8), "Naïve café, 12345 😀 “quoted” <|im_end|> \tx", "x"]
    ours, coverage = exact.posteriors(texts)
    theirs, their_coverage = unmerged.posteriors(texts)
    np.testing.assert_allclose(theirs, ours, atol=CLOSE)
    np.testing.assert_allclose(their_coverage, coverage, atol=CLOSE)
    clear = np.sort(ours, 1)[:, -1] - np.sort(ours, 1)[:, -2] > 2 * CLOSE
    assert clear.sum() >= 8
    assert (theirs.argmax(1) == ours.argmax(1))[clear].all()


@pytest.mark.real
def test_the_whole_analysis_agrees(unmerged: EmotionModel, exact: EmotionModel) -> None:
    text = "I feel disappointed and ignored, nobody even asked how I was."
    ours, theirs = (model.analyze(text, taxonomy="ekman") for model in (exact, unmerged))
    assert theirs.model == f"{load_shipped().default}-transformers"
    assert (theirs.emotion, theirs.fine_emotion, theirs.emotions) == (ours.emotion, ours.fine_emotion, ours.emotions)
    assert theirs.reasoning
    assert theirs.reasoning.split()[:4] == (ours.reasoning or "").split()[:4]
    assert all(quote in text for quote in theirs.evidence)


@pytest.mark.real
def test_the_tokens_and_their_bytes_are_llama_cpps(unmerged: EmotionModel) -> None:
    engine = unmerged.engine
    assert isinstance(engine, TransformersEngine)
    native = NativeModel(find_base_gguf(load_base("smollm2-135m")), vocab_only=True)
    try:
        assert engine.pieces == native.pieces
        for text in ("<|im_start|>user", "it's 2024\n\n\ttab", "😀 naïve"):
            assert engine.tokenizer.encode(text) == native.encode(text)
    finally:
        native.close()


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not read x\.gguf"):
        load_unmerged("x.gguf")
    with pytest.raises(ModelError, match="no model 'nosuch'"):
        load_unmerged("nosuch")
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        load_unmerged(str(tmp_path))
    with pytest.raises(UsageError, match="GGUF-LoRA"), open_model(resolve({"adapter": "x.gguf"}, {}), "transformers"):
        pass


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="needs the package peft") as caught:
        load_unmerged()
    assert "[train]" in caught.value.hint


def test_an_adapter_of_an_unknown_base_is_refused(tmp_path: Path) -> None:
    import shutil

    adapter = tmp_path / "adapter"
    shutil.copytree(asset("models", "adapters", "author"), adapter)
    claim = json.loads((adapter / "base.json").read_text(encoding="utf-8"))
    (adapter / "base.json").write_text(json.dumps(claim | {"model_id": "example/other"}))
    with pytest.raises(ModelError, match="example/other"):
        load_unmerged(str(adapter))
    (adapter / "base.json").unlink()
    with pytest.raises(ModelError, match="does not say which base"):
        load_unmerged(str(adapter))
