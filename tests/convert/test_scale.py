"""A model of 1.5 billion weights is converted and quantized in little more memory than its largest shard takes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from convert.header import check_header
from convert.tokens import gguf_tokens

pytestmark = [pytest.mark.scale, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

WIDTH, HIDDEN, KV, N_BLOCKS, VOCABULARY = 2048, 8192, 512, 24, 49_152
SHARD_BYTES = 500_000_000

MEASURED = """
import re, sys
from convert.hf_to_gguf import hf_to_gguf
from convert.quantize import quantize
verb, source, out, file_type, *texts = sys.argv[1:]
hf_to_gguf(source, out, file_type) if verb == "convert" else quantize(source, out, file_type, texts=texts)
# Not getrusage: its peak begins with that of the process that started this one.
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]))
"""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for block in range(N_BLOCKS):
        at = f"model.layers.{block}"
        yield f"{at}.self_attn.q_proj.weight", (WIDTH, WIDTH)
        yield f"{at}.self_attn.k_proj.weight", (KV, WIDTH)
        yield f"{at}.self_attn.v_proj.weight", (KV, WIDTH)
        yield f"{at}.self_attn.o_proj.weight", (WIDTH, WIDTH)
        yield f"{at}.mlp.gate_proj.weight", (HIDDEN, WIDTH)
        yield f"{at}.mlp.up_proj.weight", (HIDDEN, WIDTH)
        yield f"{at}.mlp.down_proj.weight", (WIDTH, HIDDEN)
        yield f"{at}.input_layernorm.weight", (WIDTH,)
        yield f"{at}.post_attention_layernorm.weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)


def write_shard(path: Path, tensors: dict[str, tuple[int, ...]], noise: np.ndarray) -> None:
    """Write bf16 tensors of noise with no more than the noise in memory."""
    entries, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for shape in tensors.values():
            left = int(np.prod(shape))
            while left:
                file.write(noise[: min(left, noise.size)].data)
                left -= min(left, noise.size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_family: Callable[..., Path]) -> Path:
    """A Llama of 1.5 billion random weights in shards, with the tokenizer and the config of a tiny one."""
    folder = make_family(tmp_path_factory.mktemp("scale") / "model", "smollm")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": N_BLOCKS, "head_dim": 64}
    config |= {"num_attention_heads": WIDTH // 64, "num_key_value_heads": KV // 64, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    floats = np.random.default_rng(0).normal(0, 0.02, 1 << 22).astype(np.float32)
    noise = (floats.view(np.uint32) >> 16).astype(np.uint16)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes():
        if sum(2 * int(np.prod(s)) for s in shards[-1].values()) + 2 * int(np.prod(shape)) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    names = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file, tensors, noise)
        names |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def peak_of(verb: str, source: Path, out: Path, file_type: str, *texts: str) -> int:
    """Bytes of memory, mapped files included, that a process of its own took at most."""
    arguments = [sys.executable, "-c", MEASURED, verb, str(source), str(out), file_type, *texts]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def converted(folder: Path) -> tuple[Path, int]:
    """The model as a BF16 GGUF, and the memory that took."""
    out = folder.with_name("bf16.gguf")
    return out, peak_of("convert", folder, out, "BF16")


@pytest.fixture(scope="module")
def largest(folder: Path) -> int:
    size = max(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 0.8 * SHARD_BYTES < size < 1.05 * SHARD_BYTES
    return size


def test_converting_takes_little_more_than_the_largest_shard(converted: tuple[Path, int], largest: int) -> None:
    print(f"largest shard {largest:,} bytes, peak {converted[1]:,}")
    assert converted[1] < 1.5 * largest


def peak_of_quantizing(source: Path, out: Path, file_type: str, *texts: str) -> int:
    peak = peak_of("quantize", source, out, file_type, *texts)
    print(f"{file_type} of {source.stat().st_size:,} bytes: peak {peak:,}")
    assert sum(tensor.n_elements for tensor in check_header(out).tensors) > 1.4e9
    return peak


@pytest.mark.parametrize(("file_type", "shards"), [("Q8_0", 1.5), ("Q4_0_MIXED", 1.5), ("Q4_K_M", 2)])
def test_quantizing_takes_little_more_than_the_largest_shard(
    tmp_path: Path, converted: tuple[Path, int], largest: int, file_type: str, shards: float
) -> None:
    assert peak_of_quantizing(converted[0], tmp_path / "q.gguf", file_type) < shards * largest


def test_reading_texts_takes_little_more_than_the_largest_shard(
    tmp_path: Path, converted: tuple[Path, int], largest: int
) -> None:
    """As many and as long as those that the commands weigh the rounding by: 150 of about 120 tokens."""
    texts = [f"{number}: I feel disappointed and ignored by everyone today. " * 7 for number in range(150)]
    lengths = [len(ids) for ids in gguf_tokens(converted[0], texts)]
    assert 110 < np.mean(lengths) < 130
    assert peak_of_quantizing(converted[0], tmp_path / "q.gguf", "Q4_0_MIXED", *texts) < 1.5 * largest
