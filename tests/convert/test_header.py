"""The header check: a sound file passes, every malformed one is a clear error, and memory stays small."""

import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from convert.errors import ConvertError, FileError, GGUFError
from convert.header import GGML_TYPES, ArrayPlace, check_header, read_array, read_header

WriteTiny = Callable[..., Path]


def test_a_sound_file_is_read(tiny_gguf: Path) -> None:
    header = check_header(tiny_gguf)
    reader = gguf.GGUFReader(tiny_gguf)
    assert header.architecture == "llama"
    assert header.metadata["llama.attention.head_count_kv"] == 2
    assert isinstance(header.metadata["tokenizer.ggml.tokens"], ArrayPlace)
    assert read_array(header, "tokenizer.ggml.tokens")[-1] == b"<|endoftext|>"
    assert read_array(header, "tokenizer.ggml.token_type") == [1] * 101 + [3]
    assert header.data_offset == reader.data_offset
    for ours, theirs in zip(header.tensors, reader.tensors, strict=True):
        assert (ours.name, ours.offset, ours.n_bytes) == (theirs.name, theirs.data_offset, theirs.n_bytes)
        assert ours.shape == tuple(reversed(theirs.shape.tolist()))


def test_the_table_of_types_is_ggmls() -> None:
    for number, (name, block, n_bytes) in GGML_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (block, n_bytes))


@pytest.mark.real
def test_the_default_base_passes_in_little_memory(base_gguf: Path) -> None:
    tracemalloc.start()
    header = check_header(base_gguf)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(header.tensors) == 272
    assert peak < 64e6


def refuse(path: Path, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError, match=words) as caught:
            check_header(path)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def key(name: str, kind: gguf.GGUFValueType, value: object) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: writer.kv_data[0].update({name: gguf.gguf_writer.GGUFValue(value, kind)})


def without(name: str) -> Callable[[gguf.GGUFWriter], None]:
    def drop(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(name, None)
        writer.tensors[0].pop(name, None)

    return drop


def stored(name: str, dtype: type[np.generic], *shape: int) -> Callable[[gguf.GGUFWriter], None]:
    def replace(writer: gguf.GGUFWriter) -> None:
        del writer.tensors[0][name]
        writer.add_tensor(name, np.ones(shape, dtype))

    return replace


U32, STRING, ARRAY = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY
F32, BOOL = gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.BOOL
EPSILON = "llama.attention.layer_norm_rms_epsilon"
TOKENS = [f"t{i}" for i in range(101)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("tokenizer.ggml.model"), "no tokenizer"),
        (without("tokenizer.ggml.tokens"), "no tokenizer"),
        (without("tokenizer.ggml.merges"), "no merges"),
        (key("tokenizer.ggml.tokens", ARRAY, [*TOKENS, "t0"]), "twice"),
        (key("tokenizer.ggml.tokens", ARRAY, ["", *TOKENS[1:], "[EMPTY_0]"]), "twice"),
        (key("tokenizer.ggml.tokens", ARRAY, TOKENS), "101 tokens but"),
        (key("tokenizer.ggml.eos_token_id", U32, 102), "outside the vocabulary"),
        (key("tokenizer.ggml.bos_token_id", STRING, "a"), "outside the vocabulary"),
        (key("llama.attention.head_count", U32, 0), "head_count is 0"),
        (key("llama.attention.head_count_kv", U32, 0), "head_count_kv is 0"),
        (key("llama.attention.head_count_kv", U32, 3), "do not divide"),
        (key("llama.block_count", U32, 3), "block 2 of 3 is missing"),
        (key("llama.block_count", U32, 4_000_000_000), "block_count is"),
        (key("llama.block_count", STRING, "2"), "block_count is"),
        (key("llama.embedding_length", U32, 65), "embeddings"),
        (without("llama.context_length"), "context_length is None"),
        (without("token_embd.weight"), "embeddings are missing"),
        (key("general.alignment", U32, 0), "alignment is 0"),
        (key("general.alignment", U32, 48), "alignment is 48"),
        (key("general.alignment", U32, 1 << 31), "alignment"),
        (key("general.alignment", STRING, "32"), "alignment"),
        (key("general.type", STRING, "adapter"), "no model"),
        (stored("blk.0.ffn_up.weight", np.int32, 96, 64), r"matrix blk\.0\.ffn_up\.weight is stored as I32"),
        (stored("blk.0.ffn_up.weight", np.float64, 96, 64), r"matrix blk\.0\.ffn_up\.weight is stored as F64"),
        (stored("blk.0.attn_norm.weight", np.float16, 64), r"vector blk\.0\.attn_norm\.weight is stored as F16"),
        (stored("blk.0.attn_norm.weight", np.float16, 1, 64), r"vector blk\.0\.attn_norm\.weight is stored as F16"),
        (key("llama.attention.key_length", U32, 0), "key_length is 0"),
        (key("llama.attention.key_length", U32, 15), "15 dimensions, which make no pairs"),
        (key("llama.attention.key_length", U32, 1 << 31), "key_length is"),
        (key("llama.attention.value_length", U32, 8), "value_length is 8"),
        (key("llama.rope.dimension_count", U32, 32), "dimension_count is 32"),
        (key("llama.rope.dimension_count_swa", U32, 32), "dimension_count_swa is 32"),
        (key("llama.rope.scaling.type", STRING, "cubic"), "rope scaling is 'cubic'"),
        (key(EPSILON, F32, -1e-5), "epsilon of its norms is -"),
        (key(EPSILON, F32, float("nan")), "epsilon of its norms is nan"),
        (without(EPSILON), "epsilon of its norms is None"),
        (key("llama.expert_count", U32, 4), "expert_used_count is 0"),
        (key("llama.expert_used_count", U32, 2), "expert_used_count is 2"),
        (key("llama.nextn_predict_layers", U32, 9), "nextn_predict_layers is 9"),
        (key("llama.attention.causal", BOOL, False), "looks ahead"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, write_tiny_gguf: WriteTiny, change: Callable[[gguf.GGUFWriter], None], words: str
) -> None:
    refuse(write_tiny_gguf(tmp_path / "x.gguf", change), words)


def test_an_unknown_architecture_is_named(tmp_path: Path, write_tiny_gguf: WriteTiny) -> None:
    path = write_tiny_gguf(tmp_path / "x.gguf", arch="mamba")
    refuse(path, "'mamba'.*llama, qwen2, qwen3, gemma3")
    assert read_header(path).architecture == "mamba"


@pytest.mark.parametrize(("kind", "pattern"), [(U32, 1), (gguf.GGUFValueType.ARRAY, [False, False])])
def test_a_window_that_no_block_keeps_to_is_refused(
    tmp_path: Path, write_tiny_gguf: WriteTiny, kind: gguf.GGUFValueType, pattern: int | list[bool]
) -> None:
    """llama.cpp asserts that one does, which would end the process."""

    def windowed(writer: gguf.GGUFWriter) -> None:
        key("gemma3.attention.sliding_window", U32, 8)(writer)

    def spoiled(writer: gguf.GGUFWriter) -> None:
        windowed(writer)
        key("gemma3.attention.sliding_window_pattern", kind, pattern)(writer)

    check_header(write_tiny_gguf(tmp_path / "sound.gguf", windowed, arch="gemma3"))
    refuse(write_tiny_gguf(tmp_path / "x.gguf", spoiled, arch="gemma3"), "no block keeps to its sliding window")


def test_no_file_an_empty_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    refuse(tmp_path / "empty.gguf", "is empty")
    for path in (tmp_path / "missing.gguf", tmp_path):
        with pytest.raises(FileError):
            check_header(path)


def start(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


ARCH = pair(b"general.architecture", 8, text(b"llama"))


def tensor(name: bytes, dims: tuple[int, ...], kind: int, offset: int, n_dims: int | None = None) -> bytes:
    count = len(dims) if n_dims is None else n_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GGU", "letters GGUF"),
        (b"GGML" + bytes(100), "letters GGUF"),
        (start(version=0), "version is 0"),
        (start(version=1), "version is 1"),
        (start(version=99), "version is 99"),
        (start(version=3 << 24), "big-endian"),
        (start(tensors=1 << 63), "claims"),
        (start(keys=1 << 63), "claims"),
        (start(keys=1) + struct.pack("<Q", 1 << 62), "a string claims"),
        (start(keys=1) + pair(b"a", 99, b""), "unknown type 99"),
        (start(keys=1) + pair(b"a", 7, b"\2"), "holds 2"),
        (start(keys=1) + pair(b"a", 8, struct.pack("<Q", 1 << 40)), "a string claims"),
        (start(keys=1) + pair(b"a", 9, struct.pack("<IQ", 9, 1)), "array of the unknown type 9"),
        (start(keys=1) + pair(b"a", 9, struct.pack("<IQ", 4, 1 << 60)), "array claims"),
        (start(keys=1) + pair(b"a", 9, struct.pack("<IQ", 8, 1000)), "truncated"),
        (start(keys=2) + pair(b"a", 0, b"\1") + pair(b"a", 0, b"\1"), "twice"),
        (start(keys=1) + pair(b"\xff\xfe", 0, b"\1"), "malformed"),
        (start(keys=1) + pair(b"a", 0, b"\1"), "names no architecture"),
        (start(keys=1) + pair(b"general.architecture", 0, b"\1"), "names no architecture"),
        (start(keys=1) + ARCH, "no tensors|tokenizer"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x" * 64, (1,), 0, 0), "a string claims 64"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"", (1,), 0, 0), "empty"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1,), 0, 0, n_dims=1 << 31), "dimensions"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (), 0, 0), "0 dimensions"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1, 0), 0, 0) + bytes(64), "impossible shape"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1 << 40, 1 << 40), 0, 0) + bytes(64), "impossible shape"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (31,), 2, 0) + bytes(64), "impossible shape"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1,), 4, 0) + bytes(64), "unknown type 4"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1,), 0, 1 << 63) + bytes(64), "starts at"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1,), 0, 32) + bytes(64), "starts at"),
        (start(keys=1, tensors=1) + ARCH + tensor(b"x", (1 << 20,), 0, 0) + bytes(64), "truncated"),
        (start(keys=1, tensors=2) + ARCH + tensor(b"x", (1,), 0, 0) + tensor(b"x", (1,), 0, 32) + bytes(99), "twice"),
    ],
)
def test_malformed_bytes_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    refuse(path, words)


def test_a_million_long_keys_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(start(keys=200) + b"".join(pair(b"%03d" % i, 8, text(b"x" * 1_000_000)) for i in range(30)))
    refuse(path, "metadata is too large")


def test_characters_of_four_bytes_do_not_fill_the_memory(tmp_path: Path) -> None:
    """One emoji makes Python keep every character of a text in four bytes."""
    texts = text("👍".encode() + b"x" * ((1 << 20) - 4)) * 64
    path = tmp_path / "x.gguf"
    path.write_bytes(start(keys=1) + pair(b"a", 9, struct.pack("<IQ", 8, 64) + texts))
    refuse(path, "metadata is too large")
    path.unlink()


def test_the_largest_vocabulary_stays_within_bounds(tmp_path: Path, write_tiny_gguf: WriteTiny) -> None:
    def many_tokens(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["tokenizer.ggml.tokens"].value = [f"{i:x}" for i in range(524_288)]

    path = write_tiny_gguf(tmp_path / "x.gguf", many_tokens)
    refuse(path, "524288 tokens but 102")


def test_every_truncation_is_refused(tmp_path: Path, tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    data_offset = check_header(tiny_gguf).data_offset
    path = tmp_path / "x.gguf"
    for length in (*range(data_offset + 3), *range(data_offset + 3, len(data), 4999), len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(GGUFError):
            check_header(path)


LOAD = """
import sys
from convert.errors import GGUFError
from convert.logits import Evaluator
for path in sys.stdin.read().splitlines():
    print(path, flush=True)
    try:
        with Evaluator(path, n_ctx=8) as model:
            model.logits([0, 1])
    except GGUFError:
        pass
"""


def test_flipped_bytes_are_refused_or_harm_nobody(tmp_path: Path, write_tiny_gguf: WriteTiny) -> None:
    """What the check lets pass, llama.cpp loads and computes with, or refuses; it never takes the process down."""

    def all_that_llama_cpp_asserts(writer: gguf.GGUFWriter) -> None:
        writer.add_key_length(16)
        writer.add_value_length(16)
        writer.add_rope_dimension_count(16)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_expert_count(0)
        writer.add_expert_used_count(0)
        writer.add_causal_attention(True)

    rng = random.Random(7)
    sound = write_tiny_gguf(tmp_path / "sound.gguf", all_that_llama_cpp_asserts)
    data, data_offset = sound.read_bytes(), check_header(sound).data_offset
    integers = int(gguf.GGMLQuantizationType.I32)
    accepted = []
    for number in range(2500):
        spoiled = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            spoiled[rng.randrange(data_offset)] = rng.choice((0, 1, integers, 255, rng.randrange(256)))
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(spoiled)
        try:
            check_header(path)
            accepted.append(str(path))
        except ConvertError:
            path.unlink()
    assert 300 < len(accepted) < 1500
    loaded = subprocess.run([sys.executable, "-c", LOAD], input="\n".join(accepted), capture_output=True, text=True)
    assert loaded.returncode == 0, (loaded.stdout.splitlines()[-1:], loaded.stderr[-500:])
