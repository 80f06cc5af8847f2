"""The torch-free merge gives the weights that torch and PEFT give, and the same answers through llama.cpp."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from convert.adapter import layers_by_tensor, read_adapter, row_order
from convert.errors import AdapterError, ConvertError
from convert.file_types import DIRECT_TYPES
from convert.gguf_file import content_sha256
from convert.header import check_header
from convert.hf_to_gguf import hf_to_gguf
from convert.merge import merge_adapter
from convert.quantize import quantization_report
from convert.safetensors_file import read_safetensors
from convert.tensors import read_tensor
from convert.tokens import NASTY_TEXTS, differing, folder_tokens, gguf_tokens

TEXTS = ("I feel disappointed and ignored...", "Thank you so much! 🎉", "why would you do that?\nEmotion:")


def llama_logits(path: Path, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    """Logits of every position of every text, one after the other, shape (tokens, vocabulary)."""
    from llama_cpp import Llama

    llama = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1)
    rows = []
    for text in texts:
        llama.reset()
        llama.eval(llama.tokenize(text.encode(), add_bos=False))
        rows.append(llama.scores[: llama.n_tokens].copy())
    llama.close()
    return np.concatenate(rows)


def kl_divergence(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    p, q = (x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
            for x in (reference.astype(np.float64), other.astype(np.float64)))  # fmt: skip
    return (np.exp(p) * (p - q)).sum(-1)


def test_each_weight_is_base_plus_scale_b_a(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    """Against the formula, written out in Hugging Face's row order and permuted once at the end."""
    out = merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", "F32")
    base, merged = check_header(tiny_gguf), check_header(out)
    changed = 0
    for layer in read_adapter(tiny_adapter).layers:
        name = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2).get_name(layer.module + ".weight", (".weight",))
        before, after = (read_tensor(header, header.tensor(name)) for header in (base, merged))
        delta = layer.scale * layer.b @ layer.a
        heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[2])
        if heads:
            delta = delta.reshape(heads, 2, -1, delta.shape[1]).swapaxes(1, 2).reshape(delta.shape)
        np.testing.assert_allclose(after, before + delta, atol=1e-6)
        changed += 1
    assert changed == 14


@pytest.mark.parametrize("file_type", DIRECT_TYPES)
def test_every_direct_type_is_written_as_it_says(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path, file_type: str
) -> None:
    exact = check_header(merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "exact.gguf", "F32"))
    out = merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", file_type)
    report = quantization_report(out)
    header = check_header(out)
    assert header.metadata["emotion_lrm.file_type"] == report.file_type == file_type
    assert header.tensor("blk.0.attn_norm.weight").type == "F32"
    matrix = {"Q4_0_MIXED": "Q4_0"}.get(file_type, file_type)
    assert header.tensor("blk.1.ffn_up.weight").type == matrix
    kept = {"token_embd.weight", *(f"blk.{i}.{name}.weight" for i in (0, 1) for name in ("attn_v", "ffn_down"))}
    assert set(report.fallbacks) == (kept if file_type == "Q4_0_MIXED" else set())
    bound = {"F32": 0, "F16": 1e-3, "BF16": 5e-3, "Q8_0": 1e-2}.get(file_type, 0.15)
    for tensor in header.tensors:
        want, got = read_tensor(exact, exact.tensor(tensor.name)), read_tensor(header, tensor)
        assert np.abs(want - got).max() <= bound * np.abs(want).max()


def test_metadata_and_chat_template_are_written(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    metadata = {
        "general.name": "Émotion",
        "prompt_hash": "ab" * 32,
        "temperature": 1.25,
        "n": 3,
        "shipped": True,
        "negative": -5,
        "labels": ["joy", "anger"],
        "thresholds": [0.1, 0.25],
    }
    out = merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", "F16", metadata, "{{ text }}")
    written = {name: field.contents() for name, field in gguf.GGUFReader(out).fields.items()}
    for key, value in metadata.items():
        assert written[key if key.startswith("general.") else f"emotion_lrm.{key}"] == value
    assert written["tokenizer.chat_template"] == "{{ text }}"
    assert written["general.base_model.0.name"] == "example/base"
    assert written["tokenizer.ggml.tokens"][-1] == "<|endoftext|>"
    assert content_sha256(check_header(out)) == written["emotion_lrm.content_sha256"]


@pytest.mark.parametrize("value", [None, {}, [], [1, "a"], "\ud800", object()])
def test_metadata_that_gguf_cannot_hold_is_refused(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path, value: object
) -> None:
    with pytest.raises(ConvertError, match="etadata"):
        merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", "F16", {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_a_refused_merge_leaves_nothing(
    tmp_path: Path, write_tiny_gguf: Callable[..., Path], tiny_adapter: Path
) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=9)
    with pytest.raises(AdapterError, match="another base"):
        merge_adapter(other, tiny_adapter, tmp_path / "m.gguf", "F16")
    with pytest.raises(ConvertError, match="Unknown file type 'Q9'"):
        merge_adapter(other, tiny_adapter, tmp_path / "m.gguf", "Q9")
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_progress_reaches_the_end(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", progress=lambda *args: seen.append(args))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_with_and_without_torch_the_weights_and_answers_agree(
    tmp_path: Path, base_gguf: Path, base_adapter: Path
) -> None:
    from convert.merge_hf import merge_hf

    folder = merge_hf(base_gguf, base_adapter, tmp_path / "hf", dtype="float32")
    merged = check_header(merge_adapter(base_gguf, base_adapter, tmp_path / "m.gguf", "F32"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    stored = read_safetensors(folder / "model.safetensors")
    assert len(stored) == len(merged.tensors) == 272
    for key, tensor in stored.items():
        name = names.get_name(key, (".weight",))
        ours, theirs = read_tensor(merged, merged.tensor(name)), tensor.read()
        order = row_order(merged, name, theirs.shape[0])
        np.testing.assert_allclose(ours, theirs if order is None else theirs[order], atol=1e-6)
    assert differing(NASTY_TEXTS, gguf_tokens(base_gguf, NASTY_TEXTS), folder_tokens(folder, NASTY_TEXTS)) == []
    assert_same_logits(folder, merged.path)
    converted = check_header(hf_to_gguf(folder, tmp_path / "converted.gguf", "F32"))
    assert {tensor.name for tensor in converted.tensors} == {tensor.name for tensor in merged.tensors}
    for tensor in converted.tensors:
        want = read_tensor(merged, merged.tensor(tensor.name))
        np.testing.assert_allclose(read_tensor(converted, tensor), want, atol=1e-6)


def assert_same_logits(folder: Path, path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = [tokenizer(text, return_tensors="pt").input_ids for text in TEXTS]
        theirs = np.concatenate([model(one).logits[0].numpy() for one in ids])
    ours = llama_logits(path)
    assert ours.shape == theirs.shape
    assert kl_divergence(theirs, ours).max() < 1e-4
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.real
def test_the_adapter_reaches_llama_cpp(tmp_path: Path, base_gguf: Path, base_adapter: Path) -> None:
    """A scale of zero gives the base's own answers; a strong adapter gives clearly other ones."""
    base = llama_logits(base_gguf)
    moved = {}
    for alpha in (0, 16):
        adapter = copy_with_alpha(base_adapter, tmp_path / f"alpha-{alpha}", alpha)
        merged = merge_adapter(base_gguf, adapter, tmp_path / f"{alpha}.gguf", "Q8_0")
        moved[alpha] = kl_divergence(base, llama_logits(merged)).mean()
    assert moved[0] < 0.02
    assert moved[16] > 10 * moved[0]


def copy_with_alpha(adapter: Path, copy: Path, alpha: int) -> Path:
    shutil.copytree(adapter, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": alpha}))
    return copy


@pytest.mark.real
def test_adapted_modules_all_find_their_tensor(base_gguf: Path, base_adapter: Path) -> None:
    assert len(layers_by_tensor(read_adapter(base_adapter), check_header(base_gguf))) == 210
