"""Adapters: what is read, and what is refused before any work starts."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.adapter import layers_by_tensor, read_adapter, require_base, rope_permutation
from convert.errors import AdapterError
from convert.header import check_header
from convert.safetensors_file import widen_bf16

WriteAdapter = Callable[..., Path]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def edit_config(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


def test_rank_alpha_and_rslora_give_the_scale(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    plain = read_adapter(write_adapter(tmp_path / "plain", lora_alpha=12))
    assert {layer.scale for layer in plain.layers} == {3.0}
    rslora = read_adapter(write_adapter(tmp_path / "rs", lora_alpha=12, use_rslora=True))
    assert {layer.scale for layer in rslora.layers} == {12 / math.sqrt(4)}


def test_patterns_are_read_as_peft_reads_them(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    wide = {f"{Q}.lora_A.weight": np.ones((6, 64), np.float32), f"{Q}.lora_B.weight": np.ones((64, 6), np.float32)}
    patterns = {"rank_pattern": {r"layers\.0\.self_attn\.q_proj": 6}, "alpha_pattern": {"down_proj": 40, "v_proj": 2}}
    adapter = read_adapter(write_adapter(tmp_path / "a", extra=wide, **patterns))
    scales = {layer.module: layer.scale for layer in adapter.layers}
    assert scales["model.layers.0.self_attn.q_proj"] == pytest.approx(8 / 6)
    assert scales["model.layers.1.self_attn.q_proj"] == 2.0
    assert scales["model.layers.1.mlp.down_proj"] == 10.0
    assert scales["model.layers.0.self_attn.v_proj"] == 0.5


def test_bfloat16_is_read_exactly(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    folder = write_adapter(tmp_path / "a")
    weights = {name: torch.tensor(w).bfloat16() for name, w in load_file(folder / "adapter_model.safetensors").items()}
    save_torch(weights, folder / "adapter_model.safetensors")
    layer = next(layer for layer in read_adapter(folder).layers if layer.module == "model.layers.0.self_attn.q_proj")
    assert np.array_equal(layer.a, weights[f"{Q}.lora_A.weight"].float().numpy())
    assert np.array_equal(layer.b, weights[f"{Q}.lora_B.weight"].float().numpy())
    assert widen_bf16(np.array([0x3F80, 0xC000], np.uint16)).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("use_dora", True, "DoRA"),
        ("modules_to_save", ["lm_head"], "modules_to_save"),
        ("trainable_token_indices", [1, 2], "embeddings"),
        ("bias", "all", "biases"),
        ("lora_bias", True, "biases"),
        ("peft_type", "IA3", "'IA3', not LORA"),
        ("init_lora_weights", "pissa_niter_4", "changed the base"),
        ("layer_replication", [[0, 2]], "replicates"),
        ("fan_in_fan_out", True, "transposed"),
        ("r", 0, "rank is 0"),
        ("r", 8, "do not fit rank 8"),
        ("lora_alpha", None, "lora_alpha"),
    ],
)
def test_unsupported_kinds_are_refused(
    tmp_path: Path, write_adapter: WriteAdapter, setting: str, value: object, words: str
) -> None:
    folder = edit_config(write_adapter(tmp_path / "a"), **{setting: value})
    with pytest.raises(AdapterError, match=words) as caught:
        read_adapter(folder)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("spoil", ["missing", "empty", "cut", "noise"])
def test_missing_and_damaged_files_are_refused(
    tmp_path: Path, write_adapter: WriteAdapter, name: str, spoil: str
) -> None:
    path = write_adapter(tmp_path / "a") / name
    data = path.read_bytes()
    path.unlink()
    if spoil != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\xff" * 999}[spoil])
    with pytest.raises(AdapterError):
        read_adapter(path.parent)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((4, 102), np.float32)}, "embeddings"),
        ({"base_model.model.lm_head.weight": np.ones((102, 64), np.float32)}, "more than LoRA"),
        ({"base_model.model.model.layers.0.x.lora_A.weight": np.ones((4, 64), np.float32)}, "only one of the two"),
        ({f"{Q}.lora_A.weight": np.ones((3, 64), np.float32)}, "do not fit rank"),
        ({f"{Q}.lora_A.weight": np.full((4, 64), np.nan, np.float32)}, "not finite"),
    ],
)
def test_unusable_tensors_are_refused(
    tmp_path: Path, write_adapter: WriteAdapter, extra: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(AdapterError, match=words):
        read_adapter(write_adapter(tmp_path / "a", extra=extra))


def test_every_module_must_find_its_tensor(tmp_path: Path, tiny_gguf: Path, write_adapter: WriteAdapter) -> None:
    header = check_header(tiny_gguf)
    assert len(layers_by_tensor(read_adapter(write_adapter(tmp_path / "good")), header)) == 14
    head = {
        "base_model.model.lm_head.lora_A.weight": np.ones((4, 64), np.float32),
        "base_model.model.lm_head.lora_B.weight": np.ones((102, 4), np.float32),
    }
    with pytest.raises(AdapterError, match="lm_head has no tensor"):
        layers_by_tensor(read_adapter(write_adapter(tmp_path / "head", extra=head)), header)
    with pytest.raises(AdapterError, match=r"model\.layers\.2\..* has no tensor"):
        layers_by_tensor(read_adapter(write_adapter(tmp_path / "deep", n_blocks=3)), header)
    with pytest.raises(AdapterError, match=r"down_proj changes \(64, 128\) weights, and blk.0.ffn_down.weight has"):
        layers_by_tensor(read_adapter(write_adapter(tmp_path / "wide", sizes=(64, 64, 32, 128))), header)


def test_another_base_is_refused(tmp_path: Path, tiny_gguf: Path, write_adapter: WriteAdapter) -> None:
    header = check_header(tiny_gguf)
    folder = write_adapter(tmp_path / "a", tiny_gguf)
    assert len(require_base(read_adapter(folder), tiny_gguf, header)) == 64
    claim = json.loads((folder / "base.json").read_text())
    for change, words in (({"gguf_sha256": "0" * 64}, "another base"), ({"architecture": "qwen2"}, "a qwen2 model")):
        (folder / "base.json").write_text(json.dumps(claim | change))
        with pytest.raises(AdapterError, match=words) as caught:
            require_base(read_adapter(folder), tiny_gguf, header)
        assert "example/base" in caught.value.hint
    for unknown in ({"model_id": "o/m", "architecture": "llama"}, claim | {"gguf_sha256": None}):
        (folder / "base.json").write_text(json.dumps(unknown))
        assert len(require_base(read_adapter(folder), tiny_gguf, header)) == 64
    (folder / "base.json").write_text("{}")
    with pytest.raises(AdapterError, match="lacks 'model_id'"):
        read_adapter(folder)


def test_the_permutation_pairs_the_two_halves_of_a_head() -> None:
    assert rope_permutation(8, 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert rope_permutation(8, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_safetensors_that_lie_about_their_size_are_refused(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    folder = write_adapter(tmp_path / "a")
    save_file({f"{Q}.lora_A.weight": np.ones((4, 64), np.float32)}, folder / "x.safetensors")
    raw = (folder / "x.safetensors").read_bytes().replace(b"[4,64]", b"[4,99]")
    (folder / "adapter_model.safetensors").write_bytes(raw)
    with pytest.raises(AdapterError, match="damaged"):
        read_adapter(folder)
