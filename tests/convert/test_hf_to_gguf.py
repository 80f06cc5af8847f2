"""Each family converted by our own writer: llama.cpp's logits and tokens are transformers' own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.errors import ModelFolderError
from convert.header import check_header, read_array
from convert.hf_to_gguf import hf_to_gguf
from convert.tokens import NASTY_TEXTS, composed, folder_tokens, gguf_tokens

MakeFamily = Callable[..., Path]

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}

CASES = {
    "smollm tied": ("smollm", {}),
    "smollm untied": ("smollm", {"tie_word_embeddings": False}),
    "smollm, an odd number of heads": (
        "smollm",
        {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1},
    ),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}),
    "llama, linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama, odd head size": ("llama", {"head_dim": 24}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, as many key-value heads": ("llama", {"num_key_value_heads": 4}),
    "qwen2 tied": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen3 tied": ("qwen3", {}),
    "qwen3 untied, one key-value head": ("qwen3", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "qwen3, yarn": ("qwen3", {"rope_parameters": YARN}),
    "gemma3 tied": ("gemma3", {}),
    "gemma3, scaled rope": ("gemma3", {"rope_parameters": GEMMA_ROPE}),
}


def transformers_logits(folder: Path, ids: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return logits


def llama_logits(path: Path, ids: list[int]) -> np.ndarray:
    from llama_cpp import Llama

    llama = Llama(
        str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0
    )
    llama.eval(ids)
    logits: np.ndarray = llama.scores[: len(ids)].copy()
    llama.close()
    return logits


@pytest.mark.parametrize("name", CASES)
def test_logits_are_transformers_own(tmp_path: Path, make_family: MakeFamily, name: str) -> None:
    family, changes = CASES[name]
    folder = make_family(tmp_path / "tiny", family, **changes)
    out = hf_to_gguf(folder, tmp_path / "tiny.gguf", "F32")
    ids = np.random.default_rng(3).integers(0, check_header(out).tensor("token_embd.weight").shape[0], 120).tolist()
    theirs, ours = transformers_logits(folder, ids), llama_logits(out, ids)
    assert theirs.std() > 0.1, "a model this flat would prove nothing"
    assert np.abs(theirs - ours).max() < 1e-3
    assert (theirs.argmax(-1) == ours.argmax(-1)).all()


@pytest.mark.parametrize("family", ["smollm", "llama", "qwen2", "qwen3", "gemma3"])
def test_tokens_are_the_folders_own(tmp_path: Path, make_family: MakeFamily, family: str) -> None:
    folder = make_family(tmp_path / "tiny", family)
    out = hf_to_gguf(folder, tmp_path / "tiny.gguf", "F16")
    specials = ["<tool_call>", "<|im_end|>", "<start_of_turn>", "<bos>", "</s>"]
    texts = [*NASTY_TEXTS, *(f"x{token} y{token}" for token in specials)]
    texts = composed(texts) if family.startswith("qwen") else texts
    ours, theirs = gguf_tokens(out, texts), folder_tokens(folder, texts)
    for text, a, b in zip(texts, ours, theirs, strict=True):
        assert a == b, text
    assert len({len(ids) for ids in ours}) > 10


def test_shards_give_the_same_file_as_one(tmp_path: Path, make_family: MakeFamily) -> None:
    one = hf_to_gguf(make_family(tmp_path / "a" / "tiny", "qwen3"), tmp_path / "one.gguf", "F32")
    many_folder = make_family(tmp_path / "b" / "tiny", "qwen3", shards=True)
    assert len(list(many_folder.glob("*.safetensors"))) > 3
    many = hf_to_gguf(many_folder, tmp_path / "many.gguf", "F32")
    left, right = check_header(one), check_header(many)
    assert sorted((t.name, t.shape) for t in left.tensors) == sorted((t.name, t.shape) for t in right.tensors)
    ids = list(range(0, 400, 7))
    assert (llama_logits(one, ids) == llama_logits(many, ids)).all()


def test_the_vocabulary_is_padded_to_the_embeddings(tmp_path: Path, make_family: MakeFamily) -> None:
    out = check_header(hf_to_gguf(make_family(tmp_path / "tiny", "smollm"), tmp_path / "tiny.gguf"))
    tokens, types = read_array(out, "tokenizer.ggml.tokens"), read_array(out, "tokenizer.ggml.token_type")
    assert len(tokens) == out.tensor("token_embd.weight").shape[0]
    assert tokens[-1] == f"[PAD{len(tokens) - 1}]".encode()
    assert types[-1] == 5
    assert types[tokens.index(b"<tool_call>")] == 4
    assert types[tokens.index(b"<|im_end|>")] == 3


def test_special_tokens_and_bos(tmp_path: Path, make_family: MakeFamily) -> None:
    llama = check_header(hf_to_gguf(make_family(tmp_path / "llama", "llama"), tmp_path / "l.gguf")).metadata
    assert llama["tokenizer.ggml.add_bos_token"] is True
    assert (llama["tokenizer.ggml.bos_token_id"], llama["tokenizer.ggml.eos_token_id"]) == (0, 1)
    smollm = check_header(hf_to_gguf(make_family(tmp_path / "smollm", "smollm"), tmp_path / "s.gguf")).metadata
    assert smollm["tokenizer.ggml.add_bos_token"] is False


def edit(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory, make_family: MakeFamily) -> Path:
    return make_family(tmp_path_factory.mktemp("sound") / "tiny", "qwen2", shards=True)


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda value: value.update(changes))


def tokenizer(change: Callable[[dict], None]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    return lambda folder: edit(folder / "tokenizer.json", change)


def pickle_only(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


def lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[2].unlink()


def cut_a_shard(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-10])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "no valid JSON"),
    "unknown architecture": (config(architectures=["MambaForCausalLM"]), "MambaForCausalLM, and the known ones"),
    "remote code": (config(auto_map={"AutoModel": "x.Y"}), "code of its own"),
    "4-bit": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
    "sliding window": (config(use_sliding_window=True), "sliding window"),
    "another activation": (config(hidden_act="relu"), "activation is relu"),
    "unknown rope": (config(rope_parameters={"rope_type": "longrope"}), "'longrope'"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads = 0"),
    "heads that do not fit": (config(num_attention_heads=8), "has the shape"),
    "too many layers": (config(num_hidden_layers=4), r"model\.layers\.3\..* is missing"),
    "too few layers": (config(num_hidden_layers=2), r"model\.layers\.2\..* has no place"),
    "untied without a head": (config(tie_word_embeddings=False), "lm_head.weight is missing"),
    "pickle only": (pickle_only, "pickled"),
    "missing shard": (lose_a_shard, "shard model-00003-of-.* is missing"),
    "truncated shard": (cut_a_shard, "damaged"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    "unknown pre-tokenizer": (
        tokenizer(lambda value: value["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="\\s+")),
        r"pre-tokenizer is unknown \(Split, ByteLevel\)",
    ),
    "no BPE": (tokenizer(lambda value: value["model"].update(type="WordPiece")), "no BPE"),
    "a token beyond the embeddings": (
        tokenizer(lambda value: value["added_tokens"][-1].update(id=5000)),
        "token 5000, and there are only",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(tmp_path: Path, sound_folder: Path, name: str) -> None:
    import shutil

    spoil, words = REFUSED[name]
    folder = tmp_path / "tiny"
    shutil.copytree(sound_folder, folder)
    spoil(folder)
    with pytest.raises(ModelFolderError, match=words) as caught:
        hf_to_gguf(folder, tmp_path / "out.gguf")
    assert caught.value.hint
    assert not (tmp_path / "out.gguf").exists()


def test_merges_that_are_no_sentencepiece_are_refused(tmp_path: Path, make_family: MakeFamily) -> None:
    folder = make_family(tmp_path / "tiny", "gemma3")
    edit(folder / "tokenizer.json", lambda value: value["model"]["merges"].pop(50))
    with pytest.raises(ModelFolderError, match="merges"):
        hf_to_gguf(folder, tmp_path / "out.gguf")
