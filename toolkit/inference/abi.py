"""Whether the llama.cpp on this machine is the one that the low-level code was written for.

llama-cpp-python mirrors C structs by hand, and their layouts change between releases. A wrong layout does not fail: it
writes a setting into another one. So sizes, fields and the defaults that the library itself fills in are compared with
the pinned release at every start; then :func:`self_test_on` shows on the loaded model that sequences are forked,
packed and moved as they should be.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError

if TYPE_CHECKING:
    from toolkit.inference.native import NativeContext, NativeModel

PINNED = "0.3.36"
_TEXT = "The quick brown fox jumps over the lazy dog."

# Bytes, number of fields, and the defaults of the fields that are set or relied on, as the pinned release has them.
_EXPECTED: Mapping[str, tuple[int, int, Mapping[str, int | float]]] = {
    "llama_context_params": (
        160,
        37,
        {
            "n_ctx": 512,
            "n_batch": 2048,
            "n_ubatch": 512,
            "n_seq_max": 1,
            "n_threads": 4,
            "n_threads_batch": 4,
            "rope_scaling_type": -1,
            "pooling_type": -1,
            "flash_attn_type": -1,
            "rope_freq_base": 0.0,
            "yarn_ext_factor": -1.0,
            "defrag_thold": -1.0,
            "type_k": 1,
            "type_v": 1,
            "embeddings": 0,
            "offload_kqv": 1,
            "no_perf": 1,
            "op_offload": 1,
            "swa_full": 1,
            "kv_unified": 0,
            "n_samplers": 0,
        },
    ),
    "llama_model_params": (
        80,
        17,
        {"n_gpu_layers": -1, "split_mode": 1, "main_gpu": 0, "vocab_only": 0, "check_tensors": 0, "no_alloc": 0},
    ),
    "llama_batch": (56, 7, {}),
    "llama_token_data": (12, 3, {}),
    "llama_token_data_array": (32, 4, {}),
}
_DEFAULTS = {
    "llama_context_params": "llama_context_default_params",
    "llama_model_params": "llama_model_default_params",
}


def check_abi(library: Any = None) -> None:
    """Compare the structs of ``library`` (llama_cpp) with the pinned release; takes well under a millisecond.

    Raises:
        ModelError: naming the first difference and the pinned release.
    """
    if library is None:
        from toolkit.inference import kernel

        kernel.install()
        import llama_cpp

        library = llama_cpp
    for difference in differences(library):
        raise ModelError(
            f"llama-cpp-python {library.__version__} does not fit: {difference}.",
            f"Install the release that emotion-lrm was written for: pip install llama-cpp-python=={PINNED}",
        )


def differences(library: Any) -> Iterator[str]:
    """What differs from the pinned release, a sentence each."""
    for name, (size, n_fields, defaults) in _EXPECTED.items():
        struct = getattr(library, name, None)
        if struct is None:
            yield f"it has no {name}"
            continue
        if (ctypes.sizeof(struct), len(struct._fields_)) != (size, n_fields):
            yield (
                f"{name} has {ctypes.sizeof(struct)} bytes and {len(struct._fields_)} fields, "
                f"not the {size} and {n_fields} of {PINNED}"
            )
            continue
        made = getattr(library, _DEFAULTS[name])() if name in _DEFAULTS else None
        for field, expected in defaults.items():
            found = getattr(made, field, math.nan)
            if found != expected:
                yield f"the default of {name}.{field} is {found}, not the {expected} of {PINNED}"


def self_test(path: Path) -> float:
    """Load a model and look whether its sequences can be trusted; returns and raises as :func:`self_test_on`."""
    from toolkit.inference.native import NativeContext, NativeModel

    model = NativeModel(path)
    contexts = []
    try:
        contexts.append(NativeContext(model, 256, 64, 4, threads=1))
        contexts.append(NativeContext(model, 2 * 256, 64, 2, threads=1, unified=False))
        return self_test_on(contexts[0], contexts[1], model)
    finally:
        for context in contexts:
            context.close()
        model.close()


def self_test_on(context: NativeContext, pen: NativeContext, model: NativeModel) -> float:
    """Fork a sequence, decode both branches in one batch and move one to ``pen``; evaluate it alone too.

    Args:
        context: an empty one with at least four sequences, as empty afterwards.
        pen: another one of the same ``model``, with two sequences that have cells of their own; one stays filled.

    Returns:
        How far the two log-probabilities of the 50 most likely tokens lie apart on average. Sound builds stay below
        0.1, as sums come in another order; a fork that copies nothing gives 0.7 and more.

    Raises:
        ModelError: where they say different things, so that no reading could be trusted.
    """
    import numpy as np

    tokens = model.encode(_TEXT)
    half = len(tokens) // 2
    packed = _forked_and_moved(context, pen, tokens[:half], tokens[half:])
    alone = _alone(context, tokens)
    for sequence in range(4):
        context.drop(sequence)
    likely = np.argsort(-alone)[:50]
    apart = float(np.abs(packed - alone)[likely].mean())
    if not apart < 0.25:  # also where it is no number
        raise ModelError(
            f"A forked, packed and moved sequence differs from the same one alone by {apart:.2f} in log-probability.",
            f"Build the pinned release again: pip install --force-reinstall llama-cpp-python=={PINNED}",
        )
    return apart


def _forked_and_moved(context: NativeContext, other: NativeContext, head: list[int], rest: list[int]) -> Any:
    """Log-probabilities after ``head + rest``: a fork of ``head`` goes another way, the last token another context."""
    context.add(head, 0, [0])
    context.decode()
    context.fork(0, 1)
    context.fork(0, 2)
    context.add(rest[:-1], len(head), [1])
    context.add(rest[::-1], len(head), [2])
    context.decode()
    other.load(1, context.save(1))
    other.fork(1, 0)
    other.drop(1)
    row = other.add(rest[-1:], len(head) + len(rest) - 1, [0], want_logits=True)
    other.decode()
    return _log_softmax(other.logits(row))


def _alone(context: NativeContext, tokens: list[int]) -> Any:
    row = context.add(tokens, 0, [3], want_logits=True)
    context.decode()
    return _log_softmax(context.logits(row))


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    values = np.array(logits, np.float64)
    values -= values.max()
    return values - np.log(np.exp(values).sum())
