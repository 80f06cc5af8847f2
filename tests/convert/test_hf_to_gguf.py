"""Each family converted by our own writer: llama.cpp's logits and tokens are transformers' own."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from convert.commands import convert
from convert.errors import ModelFolderError
from convert.header import check_header, read_array, read_header
from convert.hf_to_gguf import hf_to_gguf
from convert.merge_hf import merge_hf
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
    "gemma3 untied": ("gemma3", {"tie_word_embeddings": False}),
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


OLD_FORM = ["llama 3 rope", "llama, linear rope", "qwen2 tied", "qwen3 tied", "qwen3, yarn", "gemma3 tied"]
OLD_FORM += ["gemma3, scaled rope"]


def write_in_the_hubs_form(folder: Path) -> None:
    """Write config and tokenizer again as transformers 4 did: the form of most folders on the hub."""

    def old_config(value: dict[str, Any]) -> None:
        rope = value.pop("rope_parameters")
        value.pop("layer_types", None)
        if value["model_type"] == "gemma3_text":
            value |= {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"], "sliding_window_pattern": 6}
            rope = rope["full_attention"]
        value |= {"rope_theta": rope.pop("rope_theta"), "torch_dtype": value.pop("dtype")}
        kind = rope.pop("rope_type")
        key = "type" if kind == "yarn" else "rope_type"  # Qwen's cards still tell people to write "type"
        value["rope_scaling"] = None if kind == "default" else {key: kind, **rope}

    def old_merges(value: dict[str, Any]) -> None:
        value["model"]["merges"] = [" ".join(pair) for pair in value["model"]["merges"]]

    edit(folder / "config.json", old_config)
    edit(folder / "tokenizer.json", old_merges)


@pytest.mark.parametrize("name", OLD_FORM)
def test_a_folder_in_the_hubs_form_gives_the_same_file(tmp_path: Path, make_family: MakeFamily, name: str) -> None:
    """transformers reads the same settings and tokenizer from both forms, so the logits of the one are the other's."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig

    family, changes = CASES[name]
    folder = make_family(tmp_path / "tiny", family, **changes)
    configs, tokenizers, files = [], [], []
    for form in ("new", "old"):
        configs.append(AutoConfig.from_pretrained(folder).to_dict())
        tokenizers.append(Tokenizer.from_file(str(folder / "tokenizer.json")).to_str())
        files.append(hf_to_gguf(folder, tmp_path / f"{form}.gguf", "F32").read_bytes())
        if form == "new":
            write_in_the_hubs_form(folder)
    configs[1]["rope_parameters"].pop("type", None)  # transformers keeps it beside "rope_type"
    assert configs[1] | configs[0] == configs[1], "the rewriting changed what is meant"
    assert tokenizers[0] == tokenizers[1]
    assert files[0] == files[1]


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
def sound_folder(tmp_path_factory: pytest.TempPathFactory, make_family: MakeFamily) -> Callable[[str], Path]:
    """A folder of a family that can be converted, made once; qwen2's is in shards."""
    return cache(lambda family: make_family(tmp_path_factory.mktemp(family) / "tiny", family, shards=family == "qwen2"))


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


def index(change: Callable[[dict], None]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    return lambda folder: edit(folder / "model.safetensors.index.json", change)


def a_shard_elsewhere(folder: Path) -> None:
    lent = sorted(folder.glob("model-*.safetensors"))[2]
    lent.rename(folder.parent / "lent.safetensors")
    index(lambda value: value["weight_map"].update(dict.fromkeys(value["weight_map"], "../lent.safetensors")))(folder)


def tensor(name: str, replacement: np.ndarray | None) -> Callable[[Path], None]:
    """Take a tensor away, or put another in its place."""

    def change(folder: Path) -> None:
        for shard in folder.glob("model*.safetensors"):
            tensors = load_file(shard)
            if tensors.pop(name, None) is not None:
                save_file(tensors if replacement is None else tensors | {name: replacement}, shard)

    return change


def merges_out_of_order(value: dict[str, Any]) -> None:
    """Part two ways to form the same token."""
    merges = value["model"]["merges"]
    place = next(i for i, (left, right) in enumerate(merges[:-9]) if left + right == "".join(merges[i + 1]))
    merges.append(merges.pop(place))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "no valid JSON"),
    "unknown architecture": (config(architectures=["MambaForCausalLM"]), "MambaForCausalLM, and the known ones"),
    "remote code": (config(auto_map={"AutoModel": "x.Y"}), "code of its own"),
    "4-bit": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
    "sliding window": (config(use_sliding_window=True), "sliding window"),
    "another activation": (config(hidden_act="relu"), "activation is relu"),
    "unknown rope": (config(rope_parameters={"rope_type": "longrope"}), "'longrope'"),
    "linear rope without its factor": (config(rope_parameters={"rope_type": "linear"}), "wrong kind: 'factor'"),
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
    "no merges": (tokenizer(lambda value: value["model"].update(merges=[])), "no merges"),
    "a tokenizer's code": (
        lambda folder: edit(folder / "tokenizer_config.json", lambda value: value.update(auto_map={"x": "y"})),
        "tokenizer needs code of its own",
    ),
    "spaces before a token": (tokenizer(lambda value: value["added_tokens"][-1].update(lstrip=True)), "swallows"),
    "spaces behind a token": (tokenizer(lambda value: value["added_tokens"][-1].update(rstrip=True)), "swallows"),
    "whole words": (tokenizer(lambda value: value["added_tokens"][-1].update(single_word=True)), "swallows"),
    "a part of each head": (config(partial_rotary_factor=0.5), "only a part of each head"),
    "a part of each head, in the new form": (
        config(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}),
        "only a part of each head",
    ),
    "capped attention": (config(attn_logit_softcapping=50.0), "attn_logit_softcapping"),
    "capped logits": (config(final_logit_softcapping=30.0), "final_logit_softcapping"),
    "two directions": (config(use_bidirectional_attention=True), "use_bidirectional_attention"),
    "heads of their own size": (config(head_dim=32), "head_dim is not hidden_size / num_attention_heads"),
    "an index of nothing": (index(lambda value: value.pop("weight_map")), "no weight_map"),
    "an empty index": (index(lambda value: value.update(weight_map={})), "holds no weights"),
    "a shard elsewhere": (a_shard_elsewhere, r"shard \.\./lent\.safetensors is missing"),
    "no weights": (lambda folder: [path.unlink() for path in folder.glob("model*")], "no model.safetensors"),
    "4-bit, untold": (
        tensor("model.layers.1.mlp.up_proj.weight", np.zeros((3072, 1), np.uint8)),
        r"quantized already \(model.layers.1.mlp.up_proj.weight is stored as U8\)",
    ),
    "no bias": (tensor("model.layers.1.self_attn.q_proj.bias", None), r"layers\.1\.self_attn\.q_proj\.bias is missing"),
}

NO_Q_NORM = tensor("model.layers.1.self_attn.q_norm.weight", None)
NO_K_NORM = tensor("model.layers.1.self_attn.k_norm.weight", None)
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
OF_OTHER_FAMILIES: dict[tuple[str, str], tuple[Callable[[Path], object], str]] = {
    ("llama", "yarn"): (config(rope_parameters=YARN), "rope scaling is 'yarn', which is not supported for llama"),
    ("llama", "no biases"): (config(attention_bias=True), r"self_attn\.q_proj\.bias is missing"),
    ("qwen3", "biases"): (config(attention_bias=True), "attention has biases"),
    ("qwen3", "no q norm"): (NO_Q_NORM, r"q_norm\.weight is missing"),
    ("qwen3", "no k norm"): (NO_K_NORM, r"k_norm\.weight is missing"),
    ("gemma3", "biases"): (config(attention_bias=True), "attention has biases"),
    ("gemma3", "no k norm"): (NO_K_NORM, r"k_norm\.weight is missing"),
    ("gemma3", "no norm before the MLP"): (
        tensor("model.layers.6.pre_feedforward_layernorm.weight", None),
        r"pre_feedforward_layernorm\.weight is missing",
    ),
    ("gemma3", "no norm behind the MLP"): (
        tensor("model.layers.6.post_feedforward_layernorm.weight", None),
        r"post_feedforward_layernorm\.weight is missing",
    ),
    ("gemma3", "another order of layers"): (config(layer_types=["full_attention"] * 7), "do not take turns"),
    ("gemma3", "another scale"): (config(query_pre_attn_scalar=64), "query_pre_attn_scalar"),
    ("gemma3", "a scaled window"): (
        config(rope_parameters={"full_attention": LINEAR, "sliding_attention": LINEAR}),
        "scales the rope of its sliding layers",
    ),
    ("gemma3", "another normalizer"): (
        tokenizer(lambda value: value.update(normalizer={"type": "NFKC"})),
        "pre-tokenizer is unknown",
    ),
    ("gemma3", "merges out of order"): (tokenizer(merges_out_of_order), "not in the order of sentencepiece scores"),
    ("gemma3", "merges left out"): (tokenizer(lambda value: value["model"]["merges"].pop(50)), "leave out ways"),
}
REFUSALS = {("qwen2", name): row for name, row in REFUSED.items()} | OF_OTHER_FAMILIES


@pytest.mark.parametrize(("family", "name"), REFUSALS)
def test_what_cannot_be_converted_is_refused_by_name(
    tmp_path: Path, sound_folder: Callable[[str], Path], write_adapter: Callable[..., Path], family: str, name: str
) -> None:
    """Whether it is to become a GGUF, or to be merged with an adapter; nothing is loaded, and nothing written."""
    spoil, words = REFUSALS[family, name]
    folder, adapter, out = tmp_path / "tiny", write_adapter(tmp_path / "adapter", n_blocks=1), tmp_path / "out"
    shutil.copytree(sound_folder(family), folder)
    spoil(folder)
    with pytest.raises(ModelFolderError, match=words) as caught:
        hf_to_gguf(folder, out)
    assert caught.value.hint
    with pytest.raises(ModelFolderError, match=words):
        merge_hf(folder, adapter, out)
    assert not out.exists()


def test_an_adapter_is_written_in_the_type_that_was_asked_for(
    tmp_path: Path, tiny_gguf: Path, tiny_adapter: Path
) -> None:
    def run(*options: str) -> Result:
        command = ["gguf", str(tiny_adapter), "--base", str(tiny_gguf), "-o", str(tmp_path / "lora.gguf"), *options]
        return CliRunner().invoke(convert, command)

    assert str(run("-t", "Q8_0").exception) == "A GGUF-LoRA file cannot be Q8_0"
    for options, file_type in ((("-t", "f32"), "F32"), ((), "F16")):
        assert run(*options).exit_code == 0
        assert {one.type for one in read_header(tmp_path / "lora.gguf").tensors} == {file_type}
