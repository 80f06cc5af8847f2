"""A random model of some hundred kilobytes that reads through both lenses, written by ``gguf`` alone."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from toolkit.assets import asset
from toolkit.contract.prompt import load_prompt

WIDTH, HIDDEN, BLOCKS = 32, 64, 1
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tiny(path: Path) -> Path:
    """Write the model. A run of letters x or of one emoji takes few tokens, so that a megabyte is read in a moment."""
    tokens, merges = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_array("emotion_lrm.lenses", ["author", "reader"])
    for name, tensor in _tensors(len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[str], list[str]]:
    tokenizer = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=byte_level.alphabet(), special_tokens=CONTROL, show_progress=False
    )
    spec = load_prompt()
    fixed = [*spec.questions.values(), "user\n", spec.prefill, spec.bridge, spec.close] * 200
    samples = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    runs = ["x" * 256, "😀" * 64] * 400
    tokenizer.train_from_iterator([*fixed, *runs, *(json.loads(line)["text"] for line in samples)], trainer)
    told = json.loads(tokenizer.to_str())["model"]
    return sorted(told["vocab"], key=told["vocab"].__getitem__), [" ".join(pair) for pair in told["merges"]]


def _tensors(vocabulary: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return chance.normal(0, 0.3, (rows, columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    tensors = {"token_embd.weight": matrix(vocabulary, WIDTH), "output_norm.weight": ones}
    for block in range(BLOCKS):
        at = f"blk.{block}"
        tensors |= {f"{at}.attn_{name}.weight": matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        tensors |= {f"{at}.ffn_{name}.weight": matrix(HIDDEN, WIDTH) for name in ("gate", "up")}
        tensors |= {f"{at}.ffn_down.weight": matrix(WIDTH, HIDDEN)}
        tensors |= {f"{at}.attn_norm.weight": ones, f"{at}.ffn_norm.weight": ones}
    return tensors
