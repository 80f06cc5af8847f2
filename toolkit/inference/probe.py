"""Questions that only native code can answer, asked in a process of its own: it may abort, or not start at all.

Started with the paths of a model (or an empty string) and of its base (or an empty string); prints one JSON object a
line: name, status, detail.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from convert.errors import ConvertError
from convert.file_types import cpu_flags
from toolkit.errors import EmotionLRMError

Finding = tuple[str, str]

# How llama.cpp names a feature it was built for, and how Linux names it.
_FLAGS = {
    "SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX2": "avx2", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8", "AMX_BF16": "amx_bf16",
}  # fmt: skip


def main() -> None:
    """Ask every question; one that fails does not keep the others from being asked."""
    model, base = (Path(path) if path else None for path in sys.argv[1:3])
    any_file = model or base
    _say("cpu", lambda: compare_flags(built_flags(), cpu_flags()))
    _say("abi", _abi)
    _say("kernel", _kernel)
    if any_file is not None:
        _say("tokenizer", lambda: _tokenizer(any_file, base))
        _say("self-test", lambda: _self_test(any_file))


def _say(name: str, question: Callable[[], Finding]) -> None:
    try:
        status, detail = question()
    except (EmotionLRMError, ConvertError) as error:
        status, detail = "broken", f"{error} {error.hint}".strip()
    except Exception as error:
        status, detail = "broken", f"{type(error).__name__}: {error}"
    print(json.dumps({"name": name, "status": status, "detail": detail}), flush=True)


def built_flags() -> frozenset[str]:
    """The processor features that llama.cpp uses, in its own names."""
    from toolkit.inference import kernel

    kernel.install()
    import llama_cpp

    told: str = llama_cpp.llama_print_system_info().decode()
    pairs = (part.rpartition(":")[2].partition("=") for part in told.split("|"))
    return frozenset(name.strip() for name, _, value in pairs if value.strip() == "1")


def compare_flags(built: frozenset[str], cpu: frozenset[str]) -> Finding:
    """Whether llama.cpp was built for this processor; ``cpu`` is empty where the system does not tell."""
    known = [name for name in _FLAGS if name in built]
    if not cpu or not known:
        return "ok", f"llama.cpp uses {', '.join(sorted(built)) or 'no special features'}"
    lacking = [name for name in known if _FLAGS[name] not in cpu]
    if lacking:
        return "broken", f"llama.cpp was built for {', '.join(lacking)}, which this processor lacks; build it again"
    unused = [name for name, flag in _FLAGS.items() if flag in cpu and name not in built]
    if unused:
        return "warning", f"llama.cpp was built without {', '.join(unused)}, so it is slower than it could be"
    return "ok", f"llama.cpp uses all it can: {', '.join(known)}"


def _abi() -> Finding:
    import llama_cpp

    from toolkit.inference.abi import PINNED, check_abi

    check_abi()
    if llama_cpp.__version__ != PINNED:
        return "warning", f"llama-cpp-python {llama_cpp.__version__} has the structs of {PINNED}, but was never tested"
    return "ok", f"llama-cpp-python {PINNED}, structs as expected"


def _kernel() -> Finding:
    from toolkit.inference import kernel

    why_not = kernel.install()
    return "ok", f"llama.cpp computes by itself: {why_not}" if why_not else "bfloat16 matrices and attention by our own"


def _tokenizer(path: Path, base: Path | None) -> Finding:
    from convert.tokens import NASTY_TEXTS, differing, gguf_tokens
    from toolkit.contract.lens import Lens
    from toolkit.contract.prompt import check_boundaries, frame_for
    from toolkit.contract.taxonomy import load_taxonomy
    from toolkit.inference.native import NativeModel

    model = NativeModel(path, vocab_only=True)
    try:
        for lens in Lens:
            check_boundaries(model, load_taxonomy(lens.native).labels)
        frame = frame_for(model, Lens.AUTHOR).name
    finally:
        model.close()
    if base is None or base == path:
        return "ok", f"prompt frame {frame}, stable boundaries"
    parting = differing(NASTY_TEXTS, gguf_tokens(path, NASTY_TEXTS), gguf_tokens(base, NASTY_TEXTS))
    if parting:
        return "broken", f"{len(parting)} of {len(NASTY_TEXTS)} texts give other tokens than the base: {parting[0]!r}"
    return "ok", f"prompt frame {frame}, stable boundaries, the base's tokens on {len(NASTY_TEXTS)} hard texts"


def _self_test(path: Path) -> Finding:
    from toolkit.inference import kernel
    from toolkit.inference.abi import self_test

    parts = {"matmul": "products", "attention": "attention"}
    before = {part: kernel.taken(part) for part in parts}
    apart = self_test(path)
    ours = " and ".join(name for part, name in parts.items() if kernel.taken(part) > before[part])
    told = f", {ours} by our kernels" if ours else ""
    return "ok", f"forked, packed and moved sequences read as single ones (difference {apart:.4f}){told}"
