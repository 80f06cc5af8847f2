"""Quantizing: real bits counted, fallbacks explained, nothing quantized twice."""

import sys
from pathlib import Path

import numpy as np
import pytest

import convert.file_types
from convert.errors import ConvertError
from convert.file_types import FILE_TYPES, cpu_flags, default_file_type, require_file_type, tensor_type
from convert.header import check_header
from convert.quantize import quantization_report, quantize
from convert.tensors import decode, encode, read_tensor


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_file_type_is_written_and_counted(tmp_path: Path, tiny_gguf: Path, file_type: str) -> None:
    report = quantize(tiny_gguf, tmp_path / "q.gguf", file_type, threads=1)
    header = check_header(tmp_path / "q.gguf")
    assert report.n_bytes == header.file_size
    assert sum(report.tensors.values()) == 20
    counted = sum(tensor.n_bytes for tensor in header.tensors) * 8 / sum(t.n_elements for t in header.tensors)
    assert report.bits_per_weight == pytest.approx(counted)
    before = check_header(tiny_gguf)
    for tensor in header.tensors:
        want = read_tensor(before, before.tensor(tensor.name))
        assert np.abs(read_tensor(header, tensor) - want).max() < 0.2 * max(1e-6, np.abs(want).max())
    assert quantization_report(tmp_path / "q.gguf", file_type) == report


def test_a_row_that_does_not_divide_falls_back_and_says_why(tmp_path: Path, tiny_gguf: Path) -> None:
    report = quantize(tiny_gguf, tmp_path / "q.gguf", "Q4_K_M", threads=1)
    assert report.tensors.get("Q4_K", 0) == 0
    assert "rows of 64 do not divide into blocks of 256" in report.fallbacks["blk.0.attn_q.weight"]
    assert tensor_type("Q8_0", "blk.0.attn_q.weight", (7, 40)) == "F16"
    for name, type_name in {"token_embd": "Q8_0", "blk.3.attn_v": "Q8_0", "blk.3.attn_k": "Q4_0"}.items():
        assert tensor_type("Q4_0_MIXED", f"{name}.weight", (7, 64)) == type_name
    assert tensor_type("Q4_0", "blk.0.attn_norm.weight", (64,)) == "F32"


def test_what_is_quantized_is_not_quantized_again(tmp_path: Path, tiny_gguf: Path) -> None:
    quantize(tiny_gguf, tmp_path / "q.gguf", "Q8_0")
    for file_type in ("Q4_0", "Q4_K_M"):
        with pytest.raises(ConvertError, match=r"quantized already \(Q8_0\)") as caught:
            quantize(tmp_path / "q.gguf", tmp_path / "r.gguf", file_type)
        assert "F32, F16 or BF16" in caught.value.hint
    assert not (tmp_path / "r.gguf").exists()


def test_file_types_are_named_in_any_case() -> None:
    assert require_file_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(ConvertError, match="'Q3_K'") as caught:
        require_file_type("Q3_K")
    assert "Q8_0" in caught.value.hint


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_encoding_twice_changes_nothing_more(type_name: str) -> None:
    weights = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    once = decode(encode(weights, type_name), type_name, 64)
    again = decode(encode(once, type_name), type_name, 64)
    np.testing.assert_allclose(again, once, rtol=2e-3, atol=2e-3)


def test_the_default_follows_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n")
    expected = frozenset({"fpu", "avx2", "avx512_bf16"}) if sys.platform == "linux" else frozenset()
    assert cpu_flags(tmp_path / "cpuinfo") == expected
    assert cpu_flags(tmp_path / "missing") == frozenset()
    for flags, file_type in (({"amx_bf16"}, "BF16"), ({"avx512_bf16"}, "BF16"), ({"avx512f"}, "Q8_0"), (set(), "Q8_0")):
        monkeypatch.setattr(convert.file_types, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert default_file_type() == file_type
