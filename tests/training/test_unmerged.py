"""On a tiny model of random weights torch and the engine read alike, through both lenses."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from convert.gguf_lora import adapter_to_gguf
from toolkit.cli import cli
from toolkit.contract.lens import Lens
from toolkit.errors import UsageError
from toolkit.inference.engine import Engine
from toolkit.inference.transformers_backend import TransformersEngine, TransformersTokenizer, load_unmerged

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # within PEFT
TEXT = "I am so glad!"


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter that PEFT wrote for the tiny model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("unmerged") / "tiny-adapter"
    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(1)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), settings).save_pretrained(folder)
    return folder


def test_the_command_reads_with_an_adapters_folder(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    arguments = ["analyze", "--backend", "transformers", "--model", str(adapter), "--json", TEXT]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    reading = json.loads(result.stdout)
    assert (reading["text"], reading["model"]) == (TEXT, "tiny-adapter-transformers")
    assert reading["reasoning"]
    engine = Engine(tiny_base, threads=1)
    (bare,) = engine.read([TEXT], Lens.AUTHOR)
    engine.swap(adapter_to_gguf(tiny_base, adapter, tmp_path / "adapter.gguf"))
    (expected,) = engine.read([TEXT], Lens.AUTHOR)
    engine.close()
    assert np.abs(bare.posterior - expected.posterior).max() > 0.01, "an adapter this weak would prove nothing"
    np.testing.assert_allclose(list(reading["scores"].values()), expected.posterior, atol=2e-3)


def test_a_gpu_that_is_not_there_is_told(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ["analyze", "--backend", "transformers", "--model", str(adapter), "--gpu-layers", "99", TEXT]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == "A GPU was asked for, and torch finds none here."
    assert "--gpu-layers" in result.exception.hint


def test_the_gpu_reads_as_the_processor_does(adapter: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here (CUDA)")
    with load_unmerged(str(adapter)) as model, load_unmerged(str(adapter), gpu=True) as on_gpu:
        assert on_gpu.engine.model.device.type == "cuda"  # type: ignore[attr-defined]
        np.testing.assert_allclose(on_gpu.posteriors([TEXT])[0], model.posteriors([TEXT])[0], atol=2e-3)


def test_on_a_tiny_model_of_random_weights_the_readings_agree(tiny_base: Path, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = TransformersTokenizer(AutoTokenizer.from_pretrained(tiny_folder))
    theirs = TransformersEngine(AutoModelForCausalLM.from_pretrained(tiny_folder).eval(), tokenizer)
    ours = Engine(tiny_base, threads=1)
    texts = ["I am so glad!", None, "Leave me alone.", "word " * 600]
    try:
        for lens in Lens:
            for left, right in zip(ours.read(texts, lens), theirs.read(texts, lens), strict=True):
                np.testing.assert_allclose(right.posterior, left.posterior, atol=2e-3)
                assert right.coverage == pytest.approx(left.coverage, abs=2e-3)

        def best(posterior: np.ndarray) -> int:
            return int(posterior.argmax())

        explained = zip(ours.explain(texts, Lens.AUTHOR, best), theirs.explain(texts, Lens.AUTHOR, best), strict=True)
        for left, right in explained:
            assert right.label == left.label
            assert right.reasoning
            assert not set('"\\\n') & set(right.reasoning)

        heard: list[list[str]] = [[], []]
        for told, engine in zip(heard, (ours, theirs), strict=True):
            found = engine.explain(["I am so glad!"], Lens.AUTHOR, best, lambda *now, told=told: told.append(now[-1]))
            whole = next(found).reasoning
            assert len(told) > 1
            assert all(later.startswith(earlier) for earlier, later in pairwise(told))
            assert whole.startswith(told[-1][:5])
        assert heard[0][:3] == heard[1][:3]
    finally:
        ours.close()
        theirs.close()
