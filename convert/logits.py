"""What a GGUF answers, through llama.cpp: the logits after every token, and how two files' answers differ."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from convert.errors import GGUFError
from convert.header import check_header, read_header
from convert.quantize import quiet
from convert.tensors import Floats
from convert.tokens import gguf_tokens


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far one model's answers lie from a reference's, over all tokens of some texts.

    Attributes:
        n_tokens: number of positions compared.
        kl_mean, kl_max: Kullback-Leibler divergence of the model from the reference, in nats.
        agreement: share of positions at which both find the same token likeliest, 0 to 1.
        max_difference: the largest difference of any logit.
    """

    n_tokens: int
    kl_mean: float
    kl_max: float
    agreement: float
    max_difference: float


class Evaluator:
    """A GGUF loaded for one purpose: the logits after every token of short sequences. Use as a context manager.

    Args:
        path: the model, checked before llama.cpp sees it.
        n_ctx: tokens a sequence may have.
        threads: CPU threads.
        adapter: a GGUF-LoRA file to add at its full strength.
        exact: compute attention in 32-bit floats throughout (by default llama.cpp keeps keys and values in 16).
        watch: llama.cpp's ``cb_eval``, called around every operation.

    Raises:
        GGUFError: the header check or llama.cpp refuses the file.
    """

    def __init__(
        self,
        path: Path | str,
        n_ctx: int = 512,
        threads: int = 1,
        adapter: Path | str | None = None,
        exact: bool = False,
        watch: Callable[[int, bool, object], bool] | None = None,
    ) -> None:
        check_header(path)
        self.n_ctx = n_ctx
        self._watch = watch
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet())
            self._open(stack, Path(path), threads, adapter, exact)
            self._stack = stack.pop_all()

    def _open(
        self, stack: contextlib.ExitStack, path: Path, threads: int, adapter: Path | str | None, exact: bool
    ) -> None:
        import llama_cpp

        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
        if not model:
            raise GGUFError(f"llama.cpp cannot load {path.name}", "Build or download it again.")
        stack.callback(llama_cpp.llama_model_free, model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.n_embd = llama_cpp.llama_model_n_embd(model)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = self.n_ctx
        settings.n_threads = settings.n_threads_batch = threads
        if exact:
            settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
            settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self._watch is not None:
            self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._watch)  # native code keeps no reference
            settings.cb_eval = self._callback
        self.context = llama_cpp.llama_init_from_model(model, settings)
        if not self.context:
            raise GGUFError(f"llama.cpp cannot make a context for {path.name}", "Is there enough memory?")
        stack.callback(llama_cpp.llama_free, self.context)
        if adapter is not None:
            _add_adapter(model, self.context, Path(adapter))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Return the logits after each token of a sequence, shape (tokens, vocabulary).

        Raises:
            GGUFError: no token, more than ``n_ctx``, one outside the vocabulary, or llama.cpp fails.
        """
        import llama_cpp

        if not all(0 <= token < self.n_vocab for token in tokens):
            raise GGUFError(f"A token is outside the vocabulary of {self.n_vocab}")
        self._decode(len(tokens), token=(llama_cpp.llama_token * len(tokens))(*tokens))
        rows = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, shape=(len(tokens), self.n_vocab)).copy()

    def read(self, embeddings: Floats) -> None:
        """Let the model read the embeddings of a sequence in place of its tokens, for ``watch`` to see what follows.

        Args:
            embeddings: shape (tokens, embedding length).

        Raises:
            GGUFError: no row, more than ``n_ctx``, rows of another length, or llama.cpp fails.
        """
        if embeddings.shape[1] != self.n_embd:
            raise GGUFError(f"Embeddings of {embeddings.shape[1]} for a model of {self.n_embd}")
        rows = np.ascontiguousarray(embeddings, np.float32)
        self._decode(len(rows), embd=rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))

    def _decode(self, n_tokens: int, **inputs: Any) -> None:
        """Evaluate one sequence from its beginning, with an output for every token."""
        import llama_cpp

        if not 0 < n_tokens <= self.n_ctx:  # llama.cpp asserts it, and an assertion ends the whole process
            raise GGUFError(f"{n_tokens} tokens do not fit the context of {self.n_ctx}")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        outputs = (ctypes.c_int8 * n_tokens)(*[1] * n_tokens)
        batch = llama_cpp.llama_batch(n_tokens=n_tokens, logits=outputs, **inputs)
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise GGUFError("llama.cpp could not evaluate a sequence")


def compare_logits(
    reference: Path | str, path: Path | str, texts: Sequence[str], threads: int = 1, n_ctx: int = 512
) -> Divergence:
    """Compare a GGUF's answers with a reference's on some texts, cut to ``n_ctx`` tokens each.

    Raises:
        GGUFError: a file is refused, or the two have vocabularies of different size.
    """
    tokens = [ids[:n_ctx] for ids in gguf_tokens(reference, texts) if ids]
    pairs = []
    with Evaluator(reference, n_ctx, threads) as left, Evaluator(path, n_ctx, threads) as right:
        if left.n_vocab != right.n_vocab:
            raise GGUFError(f"The vocabularies differ: {left.n_vocab} and {right.n_vocab} tokens")
        for ids in tokens:
            pairs.append(_differences(left.logits(ids), right.logits(ids)))
    kl, same, largest = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return Divergence(kl.size, float(kl.mean()), float(kl.max()), float(same.mean()), float(largest.max()))


def kl_divergence(reference: Floats, other: Floats) -> npt.NDArray[np.float64]:
    """Return KL(reference || other) of the softmax of each row of logits, in nats."""
    p, q = _log_softmax(reference), _log_softmax(other)
    # clipped, for rounding can leave a hair less than nothing
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0))


def _log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _differences(left: Floats, right: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    return kl_divergence(left, right), left.argmax(-1) == right.argmax(-1), np.abs(left - right).max(-1)


def _add_adapter(model: Any, context: Any, path: Path) -> None:
    import llama_cpp

    read_header(path)
    adapter = llama_cpp.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        raise GGUFError(f"llama.cpp cannot load the adapter {path.name}", "Was it made for this model?")
    adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
    if llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales) != 0:
        raise GGUFError(f"llama.cpp cannot use the adapter {path.name}")
