"""verify answers each question rightly: yes, no, and not asked."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from convert.commands import convert
from convert.errors import GGUFError
from convert.file_types import FILE_TYPES
from convert.logits import Evaluator, compare_logits, kl_divergence
from convert.merge import merge_adapter
from convert.quantize import quantize
from convert.verify import VerifyReport, verify

TEXTS = (
    "I feel disappointed and ignored by everyone, and I can't say why.",
    "Thank you so much, what a lovely day! We went to the sea and the children laughed all the way home.",
)


def answers(report: VerifyReport) -> dict[str, bool | None]:
    return {check.name: check.passed for check in report.checks}


@pytest.fixture
def merged(tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path) -> Path:
    return merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "m.gguf", "F16", {"prompt_hash": "abc"}, "t")


def test_a_sound_file_passes_every_question(tmp_path: Path, merged: Path, tiny_gguf: Path, tiny_adapter: Path) -> None:
    digest = hashlib.sha256(merged.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.gguf\n{digest}  m.gguf\n")
    exact = merge_adapter(tiny_gguf, tiny_adapter, tmp_path / "exact.gguf", "F32")
    report = verify(merged, tmp_path / "SHA256SUMS", "abc", base=tiny_gguf, reference=exact)
    assert report.passed, report.checks
    assert set(answers(report).values()) == {True}


def test_what_our_own_commands_write_passes(tmp_path: Path, tiny_gguf: Path, make_family: Callable[..., Path]) -> None:
    """A folder that became a GGUF, and a foreign GGUF in every file type: there is no adapter for them to name."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(convert, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    folder, out = make_family(tmp_path / "tiny", "qwen2"), tmp_path / "out.gguf"
    run("gguf", folder, "-o", out)
    assert "BF16, a model without an adapter" in run("verify", out, "--base", folder)
    for file_type in FILE_TYPES:
        run("quantize", tiny_gguf, "-o", out, "-t", file_type)
        assert f"{file_type}, a model without an adapter" in run("verify", out, "--base", tiny_gguf)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"file_type": "F32"}, None),
        ({"file_type": "BANANA"}, "'BANANA', which is not known"),
        ({"base_sha256": "0", "adapter_sha256": "0"}, "None, which is not known"),
        ({"file_type": "F32", "base_sha256": "0"}, "its base alone"),
        ({"file_type": "F32", "adapter_sha256": "0"}, "its adapter alone"),
        *(({"file_type": name}, "15 tensors are of another type") for name in FILE_TYPES if name != "F32"),
    ],
)
def test_a_false_label_is_found(
    tmp_path: Path, write_tiny_gguf: Callable[..., Path], told: dict[str, str], words: str | None
) -> None:
    def label(writer: gguf.GGUFWriter) -> None:
        for key, value in told.items():
            writer.add_string(f"emotion_lrm.{key}", value)

    (found,) = (one for one in verify(write_tiny_gguf(tmp_path / "x.gguf", label)).checks if one.name == "metadata")
    assert found.passed is (words is None)
    assert (words or "F32, a model without an adapter") in found.detail


def test_what_is_not_asked_is_neither_yes_nor_no(merged: Path) -> None:
    found = answers(verify(merged))
    assert [name for name, passed in found.items() if passed is None] == [
        "manifest", "prompt", "base", "tokens", "logits",
    ]  # fmt: skip


def test_each_lie_is_found(tmp_path: Path, merged: Path, write_tiny_gguf: Callable[..., Path]) -> None:
    def rename(writer: object) -> None:
        writer.kv_data[0]["tokenizer.ggml.tokens"].value[5] = "zz"  # type: ignore[attr-defined]

    other = write_tiny_gguf(tmp_path / "other.gguf", rename, seed=4)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64} *m.gguf\n")
    found = answers(verify(merged, tmp_path / "SHA256SUMS", "another", base=other, reference=other))
    assert found == {
        "header": True,
        "content": True,
        "manifest": False,
        "prompt": False,
        "metadata": True,
        "base": False,
        "tokens": False,
        "logits": False,
    }


def test_one_changed_bit_is_found(merged: Path) -> None:
    data = bytearray(merged.read_bytes())
    data[len(data) - 100] ^= 4
    merged.write_bytes(data)
    report = verify(merged)
    assert not report.passed
    assert answers(report)["content"] is False


def test_a_refused_file_ends_the_questions(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    report = verify(tmp_path / "x.gguf", prompt_hash="abc")
    assert answers(report) == {"header": False}
    assert not report.passed


def test_a_manifest_that_is_silent_or_missing_fails(tmp_path: Path, merged: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("")
    assert answers(verify(merged, tmp_path / "SHA256SUMS"))["manifest"] is False
    assert answers(verify(merged, tmp_path / "none"))["manifest"] is False


def test_kl_divergence_by_hand() -> None:
    left, right = np.log(np.array([[0.5, 0.5]], np.float32)), np.log(np.array([[0.25, 0.75]], np.float32))
    assert kl_divergence(left, right)[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert kl_divergence(left + 7, left)[0] == pytest.approx(0, abs=1e-6)


def test_too_many_tokens_never_reach_native_code(merged: Path) -> None:
    with Evaluator(merged, n_ctx=8) as model:
        assert model.logits([1, 2, 3]).shape == (3, 102)
        for tokens in ([], [0] * 9, [102], [-1]):
            with pytest.raises(GGUFError):
                model.logits(tokens)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory, base_gguf: Path, base_adapter: Path) -> Path:
    """The default base with a random adapter, all weights as 32-bit floats."""
    return merge_adapter(base_gguf, base_adapter, tmp_path_factory.mktemp("exact") / "exact.gguf", "F32")


@pytest.mark.real
@pytest.mark.parametrize(
    ("file_type", "bits", "kl", "agreement"),
    [
        ("BF16", 16.01, 1e-3, 0.95),
        ("Q8_0", 8.6, 0.01, 0.9),
        ("Q5_1", 6.1, 0.2, 0.6),
        ("Q4_0_MIXED", 6.3, 0.6, 0.4),
        ("Q4_K_M", 6.3, 0.2, 0.7),
    ],
)
def test_what_quantizing_costs(
    tmp_path: Path, exact: Path, file_type: str, bits: float, kl: float, agreement: float
) -> None:
    """Bounds about half as wide again as measured; a random adapter leaves a model that is easily upset."""
    report = quantize(exact, tmp_path / "q.gguf", file_type, threads=1)
    assert report.bits_per_weight <= bits
    assert verify(tmp_path / "q.gguf").passed
    cost = compare_logits(exact, tmp_path / "q.gguf", TEXTS)
    assert cost.kl_mean < kl
    assert cost.agreement >= agreement
