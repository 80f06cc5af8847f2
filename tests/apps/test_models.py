"""`emotion-lrm models`, on a cache folder with a small GGUF in it."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from toolkit.cli import main
from toolkit.contract.lens import Lens
from toolkit.evaluation.calibrate import add_calibration

NAME = "emotion-smollm2-135m-q8_0"


def write_model(path: Path, calibration: str) -> None:
    """A GGUF with the sizes, tokenizer and metadata that a header must have, and next to no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["a", "b", "ab", "<|endoftext|>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_string("emotion_lrm.name", "emotion-smollm2-135m")
    writer.add_string("emotion_lrm.licence", "Apache-2.0")
    writer.add_array("emotion_lrm.lenses", ["author"])
    writer.add_string("emotion_lrm.calibration", calibration)
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), dtype=np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of a cache, with one sound model and one broken file."""
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(tmp_path))
    folder = tmp_path / "models"
    folder.mkdir()
    for lens in Lens:
        add_calibration({"fitted_on": f"{lens.native} dev"}, lens, tmp_path / "calibration.json")
    write_model(folder / f"{NAME}.gguf", (tmp_path / "calibration.json").read_text(encoding="utf-8"))
    (folder / "broken.gguf").write_bytes(b"GGUF")
    return folder


def test_list_names_the_sound_models(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.split() == [NAME, "0", "MB"]
    assert main(["models", "list", "--json"]) == 0
    path = cache / f"{NAME}.gguf"
    assert json.loads(capsys.readouterr().out) == {"name": NAME, "path": str(path), "bytes": path.stat().st_size}


def test_show_tells_what_the_file_says_of_itself(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", NAME, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "name": NAME,
        "path": str(cache / f"{NAME}.gguf"),
        "bytes": (cache / f"{NAME}.gguf").stat().st_size,
        "licence": "Apache-2.0",
        "lenses": ["author"],
        "calibrated_on": "goemotions dev, empathetic dev",
    }
    assert main(["models", "show", NAME]) == 0
    assert "lenses         author" in capsys.readouterr().out


def test_a_model_without_calibration_was_calibrated_on_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(cache / f"{NAME}.gguf", "{}")
    assert main(["models", "show", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calibrated_on"] == ""


def test_path_and_remove(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path"]) == 0
    assert capsys.readouterr().out == f"{cache}\n"
    assert main(["models", "path", NAME]) == 0
    assert capsys.readouterr().out == f"{cache / NAME}.gguf\n"
    assert main(["models", "remove", NAME]) == 0
    assert not (cache / f"{NAME}.gguf").exists()
    assert main(["models", "path", NAME]) == 1
    assert main(["models", "list"]) == 0
    assert "No model is built yet" in capsys.readouterr().err


def test_an_unknown_name_is_an_error_with_a_next_step(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "nonsense"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert main(["models", "remove", str(cache.parent / "other.gguf")]) != 0
