"""Rounding with care: sound Q4_0, better than rounding each weight by itself, best where the inputs are known."""

import errno
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import convert.activations
from convert.activations import Watch, in_turn, input_moments
from convert.errors import ConvertError, FileError, GGUFError
from convert.gguf_file import TensorPlan, as_field, copied_fields, write_gguf
from convert.header import check_header
from convert.hf_to_gguf import hf_to_gguf
from convert.logits import Evaluator, compare_logits
from convert.quantize import quantize
from convert.rounding import Moments, best_scale, round_q4_0
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


def matrices_of(path: Path) -> dict[str, int]:
    """The matrices of all blocks, with their number of columns."""
    tensors = check_header(path).tensors
    return {t.name: t.shape[1] for t in tensors if t.name.startswith("blk.") and len(t.shape) == 2}


def moments_of(path: Path, texts: list[str], folder: Path) -> dict[str, Moments]:
    """Those of all blocks at once."""
    return {name: moments for block in input_moments(path, texts, folder) for name, moments in block.items()}


def test_what_is_watched_are_the_inputs_of_the_matrices(tmp_path: Path, tiny_gguf: Path) -> None:
    """The first block's q, k and v see the normed embeddings, which can be computed by hand."""
    moments = moments_of(tiny_gguf, TEXTS, tmp_path)
    assert set(moments) == set(matrices_of(tiny_gguf))
    assert moments["blk.0.attn_q.weight"][0].shape == (64, 64)
    assert moments["blk.0.ffn_down.weight"][0].shape == (96, 96)
    header = check_header(tiny_gguf)
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


def test_without_a_text_there_is_nothing_to_weigh_by(tmp_path: Path, tiny_gguf: Path) -> None:
    with pytest.raises(ConvertError, match="no text"):
        input_moments(tiny_gguf, [""], tmp_path)


LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3_ROPE |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}
LONG_TEXTS = [
    "I feel disappointed and ignored by everyone today, and I can't say why.",
    "Thank you so much! That's the best news I've had, and we're so happy for you and for them.",
]


def whole_model_moments(path: Path, texts: list[str]) -> dict[str, Moments]:
    """What a reading of the whole model shows, from its tokens on."""
    watch = Watch(matrices_of(path))
    with Evaluator(path, watch=watch) as model:
        for ids in gguf_tokens(path, texts):
            watch.begin()
            model.logits(ids)
    return watch.moments()


def assert_blocks_read_as_the_whole(path: Path, rtol: float = 1e-5) -> None:
    """The moments of each block by itself are those of the block in its place, and nothing is left of its file."""
    before = sorted(path.parent.iterdir())
    whole, alone = whole_model_moments(path, LONG_TEXTS), moments_of(path, LONG_TEXTS, path.parent)
    assert set(whole) == set(alone) == set(matrices_of(path))
    for name, want in whole.items():
        for left, right in zip(want, alone[name], strict=True):
            np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * np.abs(left).max())
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("family", "file_type", "changes"),
    [
        ("llama", "BF16", {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
        ("smollm", "F16", {}),
        ("qwen2", "F32", {}),
        ("qwen3", "BF16", {}),
        ("gemma3", "F32", {"num_hidden_layers": 8, "rope_parameters": GEMMA_ROPE, "tie_word_embeddings": False}),
    ],
)
def test_blocks_by_themselves_meet_what_they_meet_in_the_model(
    tmp_path: Path, make_family: Callable[..., Path], family: str, file_type: str, changes: dict[str, object]
) -> None:
    folder = make_family(tmp_path / family, family, **changes)
    assert_blocks_read_as_the_whole(hf_to_gguf(folder, tmp_path / "m.gguf", file_type))


@pytest.mark.parametrize("pattern", [3, 0, [True, False, False, True, True, False, True]])
def test_the_layers_of_gemma_take_turns_as_its_metadata_says(
    tmp_path: Path, make_family: Callable[..., Path], pattern: int | list[bool]
) -> None:
    source = check_header(hf_to_gguf(make_family(tmp_path / "g", "gemma3"), tmp_path / "usual.gguf", "F32"))
    path = tmp_path / "told.gguf"
    fields = copied_fields(source) | {"gemma3.attention.sliding_window_pattern": as_field(pattern)}
    plans = [TensorPlan(t.name, t.type, t.shape) for t in source.tensors]
    write_gguf(path, "gemma3", fields, plans, lambda plan: [read_tensor(source, source.tensor(plan.name))])
    assert_blocks_read_as_the_whole(path)
    usual, told = (moments_of(p, LONG_TEXTS, tmp_path)["blk.6.attn_q.weight"][0] for p in (source.path, path))
    assert not np.allclose(usual, told, rtol=1e-3)


def test_the_attention_of_gemma_27b_is_scaled_in_its_own_way(tmp_path: Path, make_family: Callable[..., Path]) -> None:
    """Known by its 62 blocks; over so many the last bit of the scale grows to a thousandth."""
    folder = make_family(tmp_path / "g", "gemma3", num_hidden_layers=62)
    assert_blocks_read_as_the_whole(hf_to_gguf(folder, tmp_path / "m.gguf", "F32"), rtol=3e-3)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second block, when one has been written: first while it is read, then on a disk that is full."""
    out = tmp_path / "q.gguf"
    read, seen = Evaluator.read, []

    def fails(model: Evaluator, embeddings: np.ndarray) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        if len(seen) > len(TEXTS):
            raise GGUFError("llama.cpp could not evaluate a sequence")
        read(model, embeddings)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "read", fails)
        with pytest.raises(GGUFError, match="could not evaluate"):
            quantize(tiny_gguf, out, "Q4_0_MIXED", texts=TEXTS)
    assert all(len(names) == 2 and all(name.endswith(".partial") for name in names) for names in seen)
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(convert.activations, "write_block", full)
    with pytest.raises(FileError, match="disk is full"):
        quantize(tiny_gguf, out, "Q4_0_MIXED", texts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_one_block_is_kept_at_a_time() -> None:
    """Matrices are asked for block after block, several in a block or none; the last block's moments are gone."""
    made = [{f"blk.{block}.attn_q.weight": [np.eye(2, dtype=np.float32)]} for block in range(4)]
    alive = [weakref.ref(block[f"blk.{number}.attn_q.weight"][0]) for number, block in enumerate(made)]
    find = in_turn(made.pop(0) for _ in range(4))
    assert find("output_norm.weight") is None
    assert len(made) == 4
    assert find("blk.0.attn_k.weight") is None
    assert find("blk.0.attn_q.weight") is not None
    assert find("blk.2.attn_q.weight") is not None
    assert [ref() is not None for ref in alive] == [False, False, True, True]
    assert find("blk.9.attn_q.weight") is None


def test_what_cannot_be_read_is_refused(tiny_gguf: Path) -> None:
    """Each would end the process in native code."""
    with Evaluator(tiny_gguf, n_ctx=8) as model:
        for shape in ((0, 64), (9, 64)):
            with pytest.raises(GGUFError, match=f"{shape[0]} tokens do not fit"):
                model.read(np.zeros(shape, np.float32))
        with pytest.raises(GGUFError, match="Embeddings of 63 for a model of 64"):
            model.read(np.zeros((2, 63), np.float32))
        for ids in ([], [0] * 9, [-1], [102]):
            with pytest.raises(GGUFError):
                model.logits(ids)


def test_watching_changes_no_answer(tiny_gguf: Path) -> None:
    ids = gguf_tokens(tiny_gguf, TEXTS)[0]
    with Evaluator(tiny_gguf) as bare, Evaluator(tiny_gguf, watch=lambda *_: True) as watched:
        np.testing.assert_allclose(bare.logits(ids), watched.logits(ids), atol=1e-4)
