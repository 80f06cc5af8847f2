"""A tiny random model with a tokenizer of SmolLM2's kind, as a base GGUF, and a corpus of the shipped samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from toolkit.assets import asset
from toolkit.contract.prompt import load_prompt
from toolkit.contract.taxonomy import load_taxonomy


def sample_rows() -> list[dict[str, str]]:
    """The shipped samples: id, text, emotion."""
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of three small layers, saved as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    spec = load_prompt()
    fixed = [*spec.questions.values(), "user\n", spec.prefill, spec.bridge, spec.close] * 200
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*fixed, *(row["text"] for row in sample_rows())], trainer)
    config = LlamaConfig(
        vocab_size=-(-tokenizer.get_vocab_size() // 64) * 64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    return folder


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> Path:
    """The tiny model as the GGUF that adapters are trained on."""
    from convert.hf_to_gguf import hf_to_gguf

    path = tiny_folder.with_name("base.gguf")
    hf_to_gguf(tiny_folder, path, "F32")
    return path


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples in GoEmotions' own form: 240 rows to train on, 60 as dev."""
    labels = load_taxonomy("goemotions").labels
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "goemotions").mkdir()
    rows = [f"{row['text']}\t{labels.index(row['emotion'])}\t{row['id']}\n" for row in sample_rows()]
    (folder / "goemotions" / "train.tsv").write_text("".join(rows[:240]), encoding="utf-8")
    (folder / "goemotions" / "dev.tsv").write_text("".join(rows[240:]), encoding="utf-8")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, tiny_base: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with base.yaml, train.yaml and chains.jsonl; base and corpora are found through the environment."""
    from convert.files import sha256_of

    monkeypatch.setenv("EMOTION_LRM_BASE", str(tiny_base))
    monkeypatch.setenv("EMOTION_LRM_CORPORA", str(corpora))
    gguf = {"package": "none", "file": "none.gguf", "sha256": sha256_of(tiny_base)}
    base = {"name": "tiny", "model_id": "example/tiny", "architecture": "llama", "licence": "Apache-2.0", "gguf": gguf}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    chains = [
        {
            "id": row["id"],
            "text": row["text"],
            "labels": [row["emotion"]],
            "lens": "author",
            "reasoning": f"The words “{row['text'].split()[0]}” speak of {row['emotion']}.",
        }
        for row in sample_rows()[:40]
        if not set('"“”\\') & set(row["text"])
    ]
    (tmp_path / "chains.jsonl").write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in chains))
    run = {
        "name": "tiny",
        "base": str(tmp_path / "base.yaml"),
        "data": {"author": {"chains": str(tmp_path / "chains.jsonl")}, "dev_limit": 60},
        "lora": {"rank": 8, "alpha": 16},
        "max_steps": 12,
        "epochs": 2,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "eval_every": 6,
        "checkpoint_every": 4,
        "precision": "float32",
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(run))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two small layers with a tokenizer of its own, saved as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator([row["text"] for row in sample_rows()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    folder = tmp_path_factory.mktemp("tiny-encoder") / "tiny-bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder
