"""The four model families: which metadata llama.cpp wants for each, and how its tensors differ from Hugging Face's."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGUFValueType
from gguf.gguf_writer import GGUFValue

from convert.adapter import rope_permutation
from convert.gguf_file import as_field
from convert.hf_folder import ModelFolder
from convert.tensors import Floats

_ACTIVATIONS = {"llama": "silu", "qwen2": "silu", "qwen3": "silu", "gemma3": "gelu_pytorch_tanh"}
_GEMMA_PERIOD = 6  # five layers with a sliding window, then a full one: fixed in llama.cpp


def model_fields(folder: ModelFolder) -> dict[str, GGUFValue]:
    """Return the metadata under the architecture's prefix, from ``config.json``.

    Raises:
        ModelFolderError: a missing setting, or one that llama.cpp cannot follow.
    """
    config, arch = folder.config, folder.architecture
    _refuse_unsupported(folder)
    head_dim = head_dimension(folder)
    whole = {
        "block_count": number(folder, "num_hidden_layers"),
        "context_length": number(folder, "max_position_embeddings"),
        "embedding_length": number(folder, "hidden_size"),
        "feed_forward_length": number(folder, "intermediate_size"),
        "attention.head_count": number(folder, "num_attention_heads"),
        "attention.head_count_kv": kv_heads(folder),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.dimension_count": head_dim,
    }
    rope = rope_parameters(folder)
    fractions = {
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.freq_base": float(rope.get("rope_theta", 10_000.0)),
    }
    fields = {f"{arch}.{key}": as_field(value) for key, value in whole.items()}
    fields |= {f"{arch}.{key}": _float32(value) for key, value in fractions.items()}
    fields |= _rope_scaling(folder, rope)
    return fields | (_gemma_fields(folder) if arch == "gemma3" else {})


def number(folder: ModelFolder, key: str) -> int:
    """Return a positive whole number of the config, or refuse the folder."""
    value = folder.config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise folder.fail(f"its config says {key} = {value!r}")
    return value


def kv_heads(folder: ModelFolder) -> int:
    """Return the number of key and value heads."""
    if folder.config.get("num_key_value_heads") is None:
        return number(folder, "num_attention_heads")
    return number(folder, "num_key_value_heads")


def head_dimension(folder: ModelFolder) -> int:
    """Return the size of a head, which need not be hidden size / heads."""
    if folder.config.get("head_dim") is not None:
        return number(folder, "head_dim")
    return number(folder, "hidden_size") // number(folder, "num_attention_heads")


def rope_parameters(folder: ModelFolder, layer_type: str = "full_attention") -> dict[str, Any]:
    """Return the rope settings in one form, whether the config writes them in the old way or the new one."""
    config = folder.config
    given: dict[str, Any] = dict(config.get("rope_parameters") or {})
    given = dict(given.get(layer_type, given))
    if not given:
        given = dict(config.get("rope_scaling") or {}) if layer_type == "full_attention" else {}
        theta = config.get("rope_theta" if layer_type == "full_attention" else "rope_local_base_freq")
        given |= {} if theta is None else {"rope_theta": theta}
    given.setdefault("rope_type", given.pop("type", "default"))
    if folder.architecture == "gemma3":
        given.setdefault("rope_theta", 1e6 if layer_type == "full_attention" else 1e4)
    return given


def rope_factors(folder: ModelFolder) -> Floats | None:
    """Return Llama 3's frequency divisors, one a pair of dimensions, or None for other ropes.

    Source: "The Llama 3 Herd of Models", and ``rope_type: llama3`` in transformers.
    """
    rope = rope_parameters(folder)
    if rope["rope_type"] != "llama3":
        return None
    low, high, factor, old_context = (
        float(rope[key])
        for key in ("low_freq_factor", "high_freq_factor", "factor", "original_max_position_embeddings")
    )
    dimensions = head_dimension(folder)
    frequencies = float(rope["rope_theta"]) ** -(np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
    wavelengths = 2 * math.pi / frequencies
    smooth = (old_context / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(
        wavelengths < old_context / high, 1.0, np.where(wavelengths > old_context / low, factor, between)
    )
    return np.asarray(factors, dtype=np.float32)


def row_order(folder: ModelFolder, name: str, n_rows: int) -> npt.NDArray[np.intp] | None:
    """Return the order in which llama.cpp wants the rows of a Hugging Face tensor, or None for as they are."""
    if folder.architecture != "llama":
        return None
    if name.endswith(("q_proj.weight", "q_proj.bias")):
        return rope_permutation(n_rows, number(folder, "num_attention_heads"))
    if name.endswith(("k_proj.weight", "k_proj.bias")):
        return rope_permutation(n_rows, kv_heads(folder))
    return None


def offset(folder: ModelFolder, name: str) -> float:
    """Return what is added to a tensor: Gemma stores its norm weights less one, llama.cpp wants them whole."""
    return 1.0 if folder.architecture == "gemma3" and name.endswith("norm.weight") else 0.0


def tied(folder: ModelFolder) -> bool:
    """Say whether the head is the embeddings, in which case a stored head is passed over."""
    default = folder.architecture == "gemma3"  # what transformers assumes where the config is silent
    return bool(folder.config.get("tie_word_embeddings", default))


def expected_shapes(folder: ModelFolder) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor of a block, by the end of its Hugging Face name."""
    width, hidden, head = number(folder, "hidden_size"), number(folder, "intermediate_size"), head_dimension(folder)
    q_rows, kv_rows = head * number(folder, "num_attention_heads"), head * kv_heads(folder)
    matrices = {
        "self_attn.q_proj": (q_rows, width),
        "self_attn.k_proj": (kv_rows, width),
        "self_attn.v_proj": (kv_rows, width),
        "self_attn.o_proj": (width, q_rows),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    norms = {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    if folder.architecture in ("qwen3", "gemma3"):
        norms |= {"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)}
    if folder.architecture == "gemma3":
        norms |= {"pre_feedforward_layernorm": (width,), "post_feedforward_layernorm": (width,)}
    biases = {f"{name}.bias": (shape[0],) for name, shape in matrices.items() if _has_bias(folder, name)}
    return {f"{name}.weight": shape for name, shape in {**matrices, **norms}.items()} | biases


def _has_bias(folder: ModelFolder, matrix: str) -> bool:
    if folder.architecture == "qwen2":
        return matrix.endswith(("q_proj", "k_proj", "v_proj"))
    setting = "attention_bias" if matrix.startswith("self_attn.") else "mlp_bias"
    return folder.architecture == "llama" and bool(folder.config.get(setting))


def _refuse_unsupported(folder: ModelFolder) -> None:
    config, arch = folder.config, folder.architecture
    activation = config.get("hidden_act") or config.get("hidden_activation") or _ACTIVATIONS[arch]
    if activation != _ACTIVATIONS[arch]:
        raise folder.fail(f"its activation is {activation}, and llama.cpp computes {_ACTIVATIONS[arch]} for {arch}")
    if config.get("use_sliding_window"):
        raise folder.fail("it uses a sliding window, which llama.cpp does not do for this architecture")
    for settings in (config, rope_parameters(folder)):
        if float(settings.get("partial_rotary_factor") or 1.0) != 1.0:
            raise folder.fail("it rotates only a part of each head (partial_rotary_factor)")
    if arch in ("qwen3", "gemma3") and config.get("attention_bias"):
        raise folder.fail(f"its attention has biases (attention_bias), which llama.cpp does not load for {arch}")
    if arch == "qwen2" and head_dimension(folder) * number(folder, "num_attention_heads") != config.get("hidden_size"):
        raise folder.fail("its head_dim is not hidden_size / num_attention_heads, as llama.cpp expects for qwen2")
    for setting in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if config.get(setting):
            raise folder.fail(f"it sets {setting}, which llama.cpp does not do for {arch}")


def _rope_scaling(folder: ModelFolder, rope: dict[str, Any]) -> dict[str, GGUFValue]:
    arch = folder.architecture
    match rope["rope_type"]:
        case "default" | "llama3":  # llama3's factors are a tensor of their own
            return {}
        case "linear":
            return {
                f"{arch}.rope.scaling.type": as_field("linear"),
                f"{arch}.rope.scaling.factor": _float32(float(rope["factor"])),
            }
        case "yarn" if arch in ("qwen2", "qwen3"):
            old_context = int(rope.get("original_max_position_embeddings") or number(folder, "max_position_embeddings"))
            return {
                f"{arch}.rope.scaling.type": as_field("yarn"),
                f"{arch}.rope.scaling.factor": _float32(float(rope["factor"])),
                f"{arch}.rope.scaling.original_context_length": as_field(old_context),
            }
    raise folder.fail(f"its rope scaling is {rope['rope_type']!r}, which is not supported for {arch}")


def _gemma_fields(folder: ModelFolder) -> dict[str, GGUFValue]:
    config = folder.config
    n_blocks = number(folder, "num_hidden_layers")
    kinds = ["full" if (block + 1) % _GEMMA_PERIOD == 0 else "sliding" for block in range(n_blocks)]
    wanted = [f"{kind}_attention" for kind in kinds]
    if config.get("layer_types", wanted) != wanted or config.get("sliding_window_pattern", 6) != _GEMMA_PERIOD:
        raise folder.fail("its layers do not take turns as llama.cpp expects, five with a window and one without")
    if config.get("query_pre_attn_scalar", 256) != head_dimension(folder):
        raise folder.fail("its query_pre_attn_scalar is not the size of a head")
    local = rope_parameters(folder, "sliding_attention")
    if local["rope_type"] != "default":
        raise folder.fail("it scales the rope of its sliding layers")
    return {
        "gemma3.attention.sliding_window": as_field(number(folder, "sliding_window")),
        "gemma3.rope.freq_base_swa": _float32(float(local["rope_theta"])),
    }


def _float32(value: float) -> GGUFValue:
    """llama.cpp reads its own settings only as 32-bit floats."""
    return GGUFValue(value, GGUFValueType.FLOAT32)
