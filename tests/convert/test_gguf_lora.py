"""Merged equals base plus adapter: by PEFT in transformers, by our merge, and by llama.cpp's own LoRA."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.adapter import read_adapter
from convert.errors import AdapterError, ConvertError
from convert.gguf_lora import adapter_to_gguf
from convert.header import read_header
from convert.hf_to_gguf import hf_to_gguf
from convert.logits import Evaluator
from convert.merge import merge_adapter
from convert.merge_hf import merge_hf

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # within PEFT

FAMILIES = ("smollm", "llama", "qwen2", "qwen3", "gemma3")
SETTINGS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"v_proj": 3, "q_proj": 5},
    },
}


def train_nothing(folder: Path, out: Path, **settings: object) -> Path:
    """Save a PEFT adapter with random A and B, written by PEFT itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **settings))
    torch.manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(out)
    return out


def peft_logits(folder: Path, adapter: Path, ids: list[int]) -> np.ndarray:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    with torch.inference_mode():
        logits: np.ndarray = adapted(torch.tensor([ids])).logits[0].numpy()
    return logits


def llama_logits(path: Path, ids: list[int], adapter: Path | None = None) -> np.ndarray:
    with Evaluator(path, 128, adapter=adapter, exact=True) as model:
        return model.logits(ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_merged_is_base_plus_adapter(
    tmp_path: Path, make_family: Callable[..., Path], family: str, setting: str
) -> None:
    folder = make_family(tmp_path / "tiny", family)
    adapter = train_nothing(folder, tmp_path / "adapter", **SETTINGS[setting])
    base = hf_to_gguf(folder, tmp_path / "base.gguf", "F32")
    merged = merge_adapter(base, adapter, tmp_path / "merged.gguf", "F32")
    lora = adapter_to_gguf(base, adapter, tmp_path / "lora.gguf", "F32")
    hf_merged = hf_to_gguf(merge_hf(folder, adapter, tmp_path / "hf", "float32"), tmp_path / "hf.gguf", "F32")

    ids = np.random.default_rng(3).integers(4, 400, 60).tolist()
    expected = peft_logits(folder, adapter, ids)
    assert np.abs(expected - llama_logits(base, ids)).max() > 0.05, "an adapter this weak would prove nothing"
    for logits in (llama_logits(merged, ids), llama_logits(base, ids, lora), llama_logits(hf_merged, ids)):
        assert np.abs(expected - logits).max() < 1e-3
        assert (expected.argmax(-1) == logits.argmax(-1)).all()


def test_the_files_metadata(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    header = read_header(adapter_to_gguf(tiny_gguf, tiny_adapter, tmp_path / "lora.gguf", metadata={"a": 1}))
    assert header.metadata["general.type"] == "adapter"
    assert header.metadata["adapter.type"] == "lora"
    assert header.metadata["adapter.lora.alpha"] == 8.0
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["emotion_lrm.a"] == 1
    assert len(header.tensors) == 2 * len(read_adapter(tiny_adapter).layers)
    assert {tensor.type for tensor in header.tensors} == {"F16"}


def test_refusals(tmp_path: Path, write_tiny_gguf: Callable[..., Path], tiny_adapter: Path) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=3)
    with pytest.raises(AdapterError, match="another base"):
        adapter_to_gguf(other, tiny_adapter, tmp_path / "lora.gguf")
    with pytest.raises(ConvertError, match="cannot be Q8_0"):
        adapter_to_gguf(other, tiny_adapter, tmp_path / "lora.gguf", "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_a_peft_adapter_of_another_kind_is_refused(tmp_path: Path, make_family: Callable[..., Path]) -> None:
    """Adapters that PEFT itself wrote: DoRA, a replaced head, adapted embeddings."""
    folder = make_family(tmp_path / "tiny", "qwen2", tie_word_embeddings=False)
    base = hf_to_gguf(folder, tmp_path / "base.gguf", "F16")
    kinds = {"DoRA": {"use_dora": True}, "modules_to_save": {"modules_to_save": ["lm_head"]}}
    for words, settings in kinds.items():
        adapter = train_nothing(folder, tmp_path / words, r=2, **settings)
        for merge in (merge_adapter, merge_hf):
            with pytest.raises(AdapterError, match=words):
                merge(base if merge is merge_adapter else folder, adapter, tmp_path / "out")
            assert not (tmp_path / "out").exists()
