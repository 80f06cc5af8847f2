"""Rounding with care: sound Q4_0, better than rounding each weight by itself, best where the inputs are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.activations import input_moments
from convert.errors import ConvertError
from convert.header import check_header
from convert.logits import Evaluator, compare_logits
from convert.quantize import quantize
from convert.rounding import best_scale, round_q4_0
from convert.tensors import decode, encode, read_tensor
from convert.tokens import gguf_tokens


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (48, 128)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """Inputs that move together, as a model's do: four directions and a little noise."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(400, 4)) @ rng.normal(size=(4, 128)) + 0.3 * rng.normal(size=(400, 128))).astype(
        np.float32
    )


def product_error(weights: np.ndarray, rounded: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.square(inputs @ (weights - decode(rounded, "Q4_0", weights.shape[1])).T).mean())


def test_the_search_beats_the_nearest(weights: np.ndarray) -> None:
    found, plain = (decode(raw, "Q4_0", 128) for raw in (round_q4_0(weights), encode(weights, "Q4_0")))
    assert np.square(weights - found).mean() < 0.93 * np.square(weights - plain).mean()


def test_known_inputs_halve_the_error_of_the_products(weights: np.ndarray, inputs: np.ndarray) -> None:
    whole = [inputs.T @ inputs / len(inputs)]
    halves = [inputs[:, part].T @ inputs[:, part] / len(inputs) for part in (slice(0, 64), slice(64, 128))]
    searched, knowing, half_knowing = (
        product_error(weights, round_q4_0(weights, moments), inputs) for moments in (None, whole, halves)
    )
    assert knowing < 0.5 * searched
    assert knowing < half_knowing < searched


def test_what_is_on_the_grid_stays_and_zeros_are_zeros(weights: np.ndarray) -> None:
    once = decode(round_q4_0(weights), "Q4_0", 128)
    np.testing.assert_allclose(decode(round_q4_0(once), "Q4_0", 128), once, atol=2e-4)
    zeros = np.zeros((3, 64), np.float32)
    assert not decode(round_q4_0(zeros, [np.zeros((64, 64), np.float32)]), "Q4_0", 64).any()


def test_the_best_scale_by_hand() -> None:
    """Ones and a minus two: a quarter takes all of them to whole levels, 4 and -8."""
    block = np.ones((1, 32), np.float32)
    block[0, 5] = -2.0
    assert best_scale(block, np.ones(32, np.float32))[0] == pytest.approx(0.25, abs=0.002)
    assert np.isfinite(best_scale(np.zeros((1, 32), np.float32), np.ones(32, np.float32))).all()


def test_moments_must_cover_the_columns(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="64 inputs for 128 columns"):
        round_q4_0(weights, [np.eye(64, dtype=np.float32)])


TEXTS = ["abababab abba", "!!ab??ab", "zyxwvut ab", "abcdefg"]


def test_what_is_watched_are_the_inputs_of_the_matrices(tiny_gguf: Path) -> None:
    """The first block's q, k and v see the normed embeddings, which can be computed by hand."""
    moments = input_moments(tiny_gguf, TEXTS)
    header = check_header(tiny_gguf)
    assert set(moments) == {t.name for t in header.tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    assert moments["blk.0.attn_q.weight"][0].shape == (64, 64)
    assert moments["blk.0.ffn_down.weight"][0].shape == (96, 96)
    embeddings = read_tensor(header, header.tensor("token_embd.weight"))
    seen = np.concatenate([embeddings[ids] for ids in gguf_tokens(tiny_gguf, TEXTS)])
    seen = seen / np.sqrt(np.square(seen).mean(1, keepdims=True) + 1e-5)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(moments[f"blk.0.{name}.weight"][0], seen.T @ seen / len(seen), rtol=1e-3, atol=1e-3)
    assert not np.allclose(moments["blk.0.ffn_up.weight"][0], moments["blk.0.attn_q.weight"][0], atol=0.05)


def test_texts_change_the_rounding_and_bring_the_answers_nearer(tmp_path: Path, tiny_gguf: Path) -> None:
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    quantize(tiny_gguf, plain, "Q4_0_MIXED")
    report = quantize(tiny_gguf, weighed, "Q4_0_MIXED", texts=TEXTS)
    assert report.tensors == {"F32": 5, "Q8_0": 5, "Q4_0": 10}
    assert plain.read_bytes() != weighed.read_bytes()
    near, far = (compare_logits(tiny_gguf, path, TEXTS).kl_mean for path in (weighed, plain))
    assert near < far


def test_without_a_text_there_is_nothing_to_weigh_by(tiny_gguf: Path) -> None:
    with pytest.raises(ConvertError, match="no text"):
        input_moments(tiny_gguf, [""])


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma3"])
def test_every_family_is_watched(tmp_path: Path, make_family: Callable[..., Path], family: str) -> None:
    from convert.hf_to_gguf import hf_to_gguf

    path = hf_to_gguf(make_family(tmp_path / family, family), tmp_path / "m.gguf", "F32")
    matrices = {t.name for t in check_header(path).tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    assert set(input_moments(path, TEXTS)) == matrices


def test_watching_changes_no_answer(tiny_gguf: Path) -> None:
    ids = gguf_tokens(tiny_gguf, TEXTS)[0]
    with Evaluator(tiny_gguf) as bare, Evaluator(tiny_gguf, watch=lambda *_: True) as watched:
        np.testing.assert_allclose(bare.logits(ids), watched.logits(ids), atol=1e-4)
