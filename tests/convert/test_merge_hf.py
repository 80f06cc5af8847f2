"""The merge with torch looks before it loads: at base and adapter, and whether the one was made for the other."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from convert.errors import AdapterError, ConvertError, GGUFError, ModelFolderError
from convert.header import check_header
from convert.hf_to_gguf import hf_to_gguf
from convert.merge_hf import load_base, merge_hf

WriteAdapter = Callable[..., Path]
SIZES = (64, 64, 32, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_family: Callable[..., Path]) -> Path:
    return make_family(tmp_path_factory.mktemp("base") / "models--org--tiny" / "snapshots" / "1", "qwen2")


def refused(base: Path, adapter: Path, out: Path, words: str) -> None:
    with pytest.raises(AdapterError, match=words) as caught:
        merge_hf(base, adapter, out)
    assert caught.value.hint
    assert not out.exists()


def test_a_gguf_and_its_adapter_must_belong_together(
    tmp_path: Path,
    tiny_gguf: Path,
    tiny_adapter: Path,
    write_tiny_gguf: Callable[..., Path],
    write_adapter: WriteAdapter,
) -> None:
    out = tmp_path / "out"
    refused(write_tiny_gguf(tmp_path / "other.gguf", seed=9), tiny_adapter, out, "another base")
    refused(tiny_gguf, write_adapter(tmp_path / "deep", n_blocks=3), out, r"layers\.2\..* has no tensor")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(GGUFError, match="not a usable GGUF"):
        merge_hf(tmp_path / "bad.gguf", tiny_adapter, out)
    assert not out.exists()


def test_a_folder_and_its_adapter_must_belong_together(
    tmp_path: Path, folder: Path, write_adapter: WriteAdapter
) -> None:
    def adapter(name: str, **given: object) -> Path:
        return write_adapter(tmp_path / name, **({"sizes": SIZES, "n_blocks": 3} | given))

    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("{}")
    refused(folder, adapter("deep", n_blocks=4), out, r"layers\.3\..* has no tensor in 1$")
    wide = adapter("wide", sizes=(64, 64, 32, 128))
    refused(folder, wide, out, r"down_proj changes \(64, 128\) weights, and 1 has \(64, 96\)")
    head = {"A": np.ones((4, 64), np.float32), "B": np.ones((448, 4), np.float32)}
    extra = {f"base_model.model.lm_head.lora_{part}.weight": matrix for part, matrix in head.items()}
    refused(folder, adapter("head", extra=extra), out, "lm_head has no tensor")
    refused(folder, adapter("id", base_model_name_or_path="org/tiny-instruct"), out, "another base, org/tiny-instruct")
    refused(folder, adapter("path", base_model_name_or_path=str(elsewhere)), out, "another base, .*elsewhere")
    claim = {"model_id": "org/tiny", "gguf_sha256": "0" * 64, "architecture": "llama"}
    told = adapter("told")
    (told / "base.json").write_text(json.dumps(claim))
    refused(folder, told, out, "trained on a llama model and the base is qwen2")
    (told / "base.json").write_text(json.dumps(claim | {"architecture": "qwen2", "model_id": "org/other"}))
    refused(folder, told, out, "another base, org/other")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # within PEFT
def test_the_right_base_is_merged_and_what_is_told_of_it_reaches_the_gguf(
    tmp_path: Path, folder: Path, write_adapter: WriteAdapter
) -> None:
    adapter = write_adapter(tmp_path / "adapter", sizes=SIZES, n_blocks=3, base_model_name_or_path="org/tiny")
    told = {"prompt_hash": "abc", "lenses": ["author", "reader"], "calibration": "{}"}
    merged = merge_hf(folder, adapter, tmp_path / "merged", "float32", told)
    written = check_header(hf_to_gguf(merged, tmp_path / "merged.gguf", metadata={"prompt_hash": "abd"})).metadata
    assert {key: written[f"emotion_lrm.{key}"] for key in told} == told | {"prompt_hash": "abd"}


def test_what_transformers_cannot_load_is_one_sentence(
    tmp_path: Path, folder: Path, write_adapter: WriteAdapter
) -> None:
    """A safetensors file with bytes that belong to no tensor, which only safetensors itself minds."""
    longer = shutil.copytree(folder, tmp_path / "longer")
    with open(longer / "model.safetensors", "ab") as file:
        file.write(bytes(8))
    with pytest.raises(ModelFolderError, match=r"longer cannot be loaded: .") as caught:
        merge_hf(longer, write_adapter(tmp_path / "adapter", sizes=SIZES, n_blocks=3), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_not_loaded(tmp_path: Path, folder: Path) -> None:
    import torch

    pickled = shutil.copytree(folder, tmp_path / "pickled")
    weights = {name: torch.tensor(weight) for name, weight in load_file(pickled / "model.safetensors").items()}
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="pickled cannot be loaded"):
        load_base(pickled)


def test_without_peft_the_next_step_is_told(
    tmp_path: Path, folder: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConvertError, match="needs the package peft") as caught:
        merge_hf(folder, write_adapter(tmp_path / "adapter", sizes=SIZES, n_blocks=3), tmp_path / "out")
    assert "train" in caught.value.hint
