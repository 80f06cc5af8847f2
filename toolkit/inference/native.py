"""The only place that speaks to llama.cpp's low-level API: a model, a context, a batch.

llama.cpp checks no bounds and aborts the process on misuse, so every call that could go wrong is checked here first.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convert.files import sha256_of
from convert.header import Header, check_header, read_header
from toolkit.errors import ModelError, UsageError
from toolkit.inference import kernel

kernel.install()
import llama_cpp  # noqa: E402 - which looks for our kernels when it is imported

_BASE_HASH = "emotion_lrm.base_sha256"
State = list[np.ndarray]
"""Keys and values of a sequence as bytes: what llama.cpp begins with, then every cache of the model: two where some
layers look through a sliding window."""
_MAGIC, _COUNT = 8, 4  # bytes that a state begins with, and bytes of a count in it
_SILENT = llama_cpp.llama_log_callback(lambda *_: None)
_backend_ready = False


def _start_backend() -> None:
    global _backend_ready
    if not _backend_ready:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        _backend_ready = True


class NativeModel:
    """A GGUF loaded by llama.cpp, with its vocabulary. The header is checked before native code sees the file.

    Raises:
        ConvertError: for a damaged file.
        ModelError: where llama.cpp does not accept it.
    """

    def __init__(self, path: Path, gpu_layers: int = 0, vocab_only: bool = False) -> None:
        self.header = check_header(path)
        self.path = path
        _start_backend()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers, params.vocab_only = gpu_layers, vocab_only
        self.pointer: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            raise ModelError(f"llama.cpp cannot load {path}.", "Check it with: emotion-lrm convert verify FILE")
        self._free = weakref.finalize(self, llama_cpp.llama_model_free, self.pointer)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self.vocab))

    def close(self) -> None:
        """Free the weights, which happens anyway where nothing refers to the model any more; safe to call twice."""
        self._free()
        self.pointer = None

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without BOS or EOS; control tokens are recognised only with ``control``."""
        _refuse_closed(self.pointer)
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, room, False, control)
        if count < 0:
            raise UsageError("The text cannot be tokenized.", "Pass shorter text.")
        return list(ids[:count])

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None."""
        ids = self.encode(token, control=True)
        return ids[0] if len(ids) == 1 and llama_cpp.llama_vocab_is_control(self.vocab, ids[0]) else None

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, which is read for it once."""
        return sha256_of(self.path)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of every token; empty for control tokens. Bytes, as a token may be part of a character."""
        buffer = ctypes.create_string_buffer(512)
        result = []
        for token in range(self.n_vocab):
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
            result.append(buffer.raw[: max(size, 0)])
        return result

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without the characters that are cut at either end."""
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "ignore")


class NativeAdapter:
    """A GGUF-LoRA loaded beside a model, which frees it. Its tensors are checked before native code sees the file.

    Raises:
        ConvertError: for a damaged file.
        ModelError: for an adapter of another model.
    """

    def __init__(self, model: NativeModel, path: Path) -> None:
        self.header = read_header(path)
        _check_adapter(self.header, model)
        self.pointer: Any = llama_cpp.llama_adapter_lora_init(model.pointer, str(path).encode())
        if not self.pointer:
            raise ModelError(f"llama.cpp cannot load the adapter {path.name}.", "Was it made for this model?")


def _check_adapter(adapter: Header, model: NativeModel) -> None:
    name, told, base = adapter.path.name, adapter.metadata, model.header
    if (told.get("general.type"), told.get("adapter.type")) != ("adapter", "lora"):
        raise ModelError(f"{name} is no LoRA adapter.", "Make one with: emotion-lrm convert gguf FOLDER --base FILE")
    hint = f"Use it with the base it was made for, not with {model.path.name}."
    if adapter.architecture != base.architecture:
        raise ModelError(f"{name} is an adapter for {adapter.architecture} models.", hint)
    for tensor in adapter.tensors:
        target, _, part = tensor.name.rpartition(".lora_")
        matrix = base.tensor(target)
        axis = {"a": -1, "b": 0}.get(part)
        if matrix is None or axis is None or len(tensor.shape) != 2 or tensor.shape[axis] != matrix.shape[axis]:
            raise ModelError(f"{name} does not fit this model: {tensor.name}.", hint)
    made_for = told.get(_BASE_HASH)
    # The base is the model's own file, or what a merged model was made of.
    if made_for is not None and made_for not in (model.sha256, base.metadata.get(_BASE_HASH)):
        raise ModelError(f"{name} was made for another base.", hint)


class NativeGrammar:
    """llama.cpp's own grammar sampler at work on one text: every step walks the whole vocabulary.

    Args:
        gbnf: a grammar whose first rule is ``root``.

    Raises:
        ModelError: where llama.cpp does not understand the grammar.
    """

    def __init__(self, model: NativeModel, gbnf: str) -> None:
        self.pointer: Any = llama_cpp.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not self.pointer:
            raise ModelError("llama.cpp does not understand a grammar.", "Report this with the text that was read.")
        self._candidates = np.zeros(model.n_vocab, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._candidates["id"] = np.arange(model.n_vocab)

    def close(self) -> None:
        """Free the sampler; safe to call twice."""
        if self.pointer:
            llama_cpp.llama_sampler_free(self.pointer)
            self.pointer = None

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """The logits, shape (n_vocab,), with minus infinity for every token that may not stand here."""
        self._candidates["logit"] = logits
        data = self._candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(data, len(self._candidates), -1, False)
        llama_cpp.llama_sampler_apply(self.pointer, ctypes.byref(array))
        return self._candidates["logit"]

    def accept(self, token: int) -> None:
        """Go on behind a token that :meth:`apply` left standing; any other one ends the process."""
        llama_cpp.llama_sampler_accept(self.pointer, token)


class NativeContext:
    """A KV cache for many sequences, and a batch of tokens to evaluate in it.

    Args:
        n_cells: KV cells, over all sequences.
        n_batch: tokens that one :meth:`decode` may take.
        n_sequences: sequence ids 0 to ``n_sequences - 1``.
        threads: for batches.
        single_threads: for a batch of one token; None takes ``threads``.
        unified: whether all sequences share the cells, so that one can begin with what another holds. Else each has an
            equal part, of a multiple of 256 cells, and attention walks over that alone.
    """

    def __init__(
        self,
        model: NativeModel,
        n_cells: int,
        n_batch: int,
        n_sequences: int,
        threads: int,
        single_threads: int | None = None,
        unified: bool = True,
    ) -> None:
        _refuse_closed(model.pointer)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_cells, n_batch, n_batch
        params.n_seq_max = n_sequences
        params.n_threads, params.n_threads_batch = single_threads or threads, threads
        params.kv_unified = unified
        params.swa_full = True  # Gemma 3 could not reuse the shared head otherwise
        params.no_perf = True
        self.pointer: Any = llama_cpp.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ModelError(
                f"There is not enough memory for a context of {n_cells} tokens.",
                "Close other programs, or use --mode fast.",
            )
        self._free = weakref.finalize(self, llama_cpp.llama_free, self.pointer)
        self._model = model  # which has to live as long
        self.memory: Any = llama_cpp.llama_get_memory(self.pointer)
        self.n_cells, self.n_batch, self.n_sequences, self.n_vocab = n_cells, n_batch, n_sequences, model.n_vocab
        self.n_streams = 1 if unified else n_sequences
        self._tokens = np.zeros(n_batch, np.int32)
        self._positions = np.zeros(n_batch, np.int32)
        self._counts = np.zeros(n_batch, np.int32)
        self._wanted = np.zeros(n_batch, np.int8)
        self._sequences = np.zeros(n_batch * n_sequences, np.int32)
        self._owners = np.zeros(n_batch, np.uintp)  # where in _sequences the ids of each row begin, as addresses
        self._fill = self._used = self._asked = 0
        self.evaluated = 0
        self.row_by_row = False  # whether the last pass attended by our kernel, so that no row depends on others

    def close(self) -> None:
        """Free the context, which happens anyway where nothing refers to it any more; safe to call twice."""
        self._free()
        self.pointer = None

    @property
    def room(self) -> int:
        """Tokens that still fit into the batch."""
        return self.n_batch - self._fill

    def add(self, tokens: Sequence[int], position: int, sequences: Sequence[int], want_logits: bool = False) -> int:
        """Put tokens that follow each other into the batch, seen by every one of ``sequences``.

        Args:
            position: of the first token.
            want_logits: behind the last token.

        Returns:
            The row of the last token.

        Raises:
            IndexError: where the batch has no room or a sequence id is out of range.
        """
        start, end, width = self._fill, self._fill + len(tokens), len(sequences)
        if not tokens or end > self.n_batch or min(sequences) < 0 or max(sequences) >= self.n_sequences:
            raise IndexError("batch or sequence out of range")
        used = self._used + width * len(tokens)
        self._sequences[self._used : used].reshape(-1, width)[:] = sequences
        self._owners[start:end] = self._sequences.ctypes.data + 4 * np.arange(self._used, used, width)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens))
        self._counts[start:end] = width
        self._wanted[start:end] = False
        self._wanted[end - 1] = want_logits
        self._fill, self._used = end, used
        return end - 1

    def add_each(
        self,
        tokens: Sequence[Sequence[int]],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[bool],
    ) -> None:
        """Put equally many tokens of each of several sequences into the batch.

        Args:
            tokens: shape (sequences, tokens of each).
            positions: of the first token of each.
            wanted: of which sequences to ask for the logits behind their last token.

        Raises:
            IndexError: where the batch has no room or a sequence id is out of range.
        """
        rows = np.asarray(tokens, np.int32)
        count, width = rows.shape
        start, end, used = self._fill, self._fill + rows.size, self._used + rows.size
        if end > self.n_batch or min(sequences) < 0 or max(sequences) >= self.n_sequences:
            raise IndexError("batch or sequence out of range")
        self._sequences[self._used : used].reshape(count, width)[:] = np.reshape(sequences, (-1, 1))
        self._owners[start:end] = self._sequences.ctypes.data + 4 * np.arange(self._used, used)
        self._tokens[start:end] = rows.ravel()
        self._positions[start:end].reshape(count, width)[:] = np.reshape(positions, (-1, 1)) + np.arange(width)
        self._counts[start:end] = 1
        self._wanted[start:end] = False
        self._wanted[start + width - 1 : end : width] = wanted
        self._fill, self._used = end, used

    def decode(self) -> None:
        """Evaluate the batch and empty it.

        Raises:
            ModelError: where the KV cache is full, llama.cpp fails, or the context is closed.
        """
        _refuse_closed(self.pointer)
        if not self._fill:
            return
        batch = llama_cpp.llama_batch()
        batch.n_tokens = self._fill
        batch.token = self._tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        batch.pos = self._positions.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_pos))
        batch.n_seq_id = self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = self._owners.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(llama_cpp.llama_seq_id)))
        batch.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        attended = kernel.taken("attention")
        status = llama_cpp.llama_decode(self.pointer, batch)
        self.row_by_row = kernel.taken("attention") > attended
        self.evaluated += self._fill
        self._asked = int(self._wanted[: self._fill].sum())
        self._fill = self._used = 0
        if status:
            cause = "the KV cache is full" if status == 1 else f"status {status}"
            raise ModelError(f"llama.cpp could not evaluate a batch: {cause}.", "Report this with --debug.")

    def use_adapter(self, adapter: NativeAdapter | None, scale: float = 1.0) -> None:
        """Add a LoRA adapter to the weights from the next decode on, in place of the one before; None adds none.

        What the cache holds was computed without it, so forget the sequences first.

        Raises:
            ModelError: where llama.cpp does not accept it.
        """
        count = 0 if adapter is None else 1
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter.pointer if adapter else None)
        if llama_cpp.llama_set_adapters_lora(self.pointer, pointers, count, (ctypes.c_float * 1)(scale)):
            raise ModelError("llama.cpp cannot use this adapter.", "Make it anew with: emotion-lrm convert gguf")

    def use_threads(self, single: int, batch: int) -> None:
        """From the next decode on: threads for a batch of one token, and for any larger one."""
        llama_cpp.llama_set_n_threads(self.pointer, single, batch)

    def discard(self) -> None:
        """Empty the batch without evaluating it."""
        self._fill = self._used = 0

    def logits(self, row: int) -> np.ndarray:
        """The logits of a row of the last batch that asked for them, shape (n_vocab,); valid until the next decode."""
        found = llama_cpp.llama_get_logits_ith(self.pointer, row)
        return np.ctypeslib.as_array(found, shape=(self.n_vocab,))

    def outputs(self) -> np.ndarray:
        """All logits that the last batch asked for, in order, shape (asked, n_vocab); valid until the next decode."""
        found = llama_cpp.llama_get_logits(self.pointer)
        return np.ctypeslib.as_array(found, shape=(self._asked, self.n_vocab))

    def fork(self, source: int, target: int) -> None:
        """Let sequence ``target`` hold everything that ``source`` holds; costs no evaluation.

        In a unified cache they share the cells, and what ``target`` has beside them it keeps. Else the cells are
        copied, at the next :meth:`decode`.

        Raises:
            ModelError: where the context is closed.
        """
        _refuse_closed(self.pointer)
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def drop(self, sequence: int) -> None:
        """Forget a sequence; its cells are free again unless shared."""
        if self.pointer:  # a reading that was left half done may be tidied up after the model was closed
            llama_cpp.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    def save(self, sequence: int) -> State:
        """Keys and values of a sequence, for :meth:`load` of a context of the same model.

        Raises:
            ModelError: where the context is closed.
        """
        _refuse_closed(self.pointer)
        size = llama_cpp.llama_state_seq_get_size(self.pointer, sequence)
        state = np.empty(size, np.uint8)
        written = llama_cpp.llama_state_seq_get_data(self.pointer, _bytes(state), size, sequence)
        if written != size:
            raise ModelError("llama.cpp could not copy a sequence.", "Report this with --debug.")
        windows = llama_cpp.llama_state_seq_get_size_ext(
            self.pointer, sequence, llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        )  # of the cache for sliding windows, or all of it
        return [part for part in np.split(state, [_MAGIC, size - windows + _MAGIC]) if len(part)]

    def load(self, sequence: int, state: State) -> None:
        """Give ``sequence``, which is empty, what :meth:`save` of a unified context returned.

        llama.cpp moves a sequence only between caches that are divided alike, as if it could be of more than one part.
        So this tells it of as many parts as there are here, all but the first of them empty.

        Raises:
            ModelError: where the sequence has too few cells, or the context is closed.
        """
        _refuse_closed(self.pointer)
        begin, *caches = state
        parts = np.array([self.n_streams], np.uint32).view(np.uint8)
        empty = np.zeros((self.n_streams - 1) * _COUNT, np.uint8)
        whole = np.concatenate([begin, *(piece for cache in caches for piece in (parts, cache[_COUNT:], empty))])
        if not llama_cpp.llama_state_seq_set_data(self.pointer, _bytes(whole), len(whole), sequence):
            raise ModelError("llama.cpp could not take up a sequence.", "Report this with --debug.")


def _refuse_closed(pointer: Any) -> None:
    if not pointer:
        raise ModelError("The model is closed.", "Load it again.")


def _bytes(state: np.ndarray) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
