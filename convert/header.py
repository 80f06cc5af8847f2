"""A bounded check of a GGUF file in pure Python, run before native code sees the file.

llama.cpp trusts much of what a file says; a bad one can abort the process. This reader trusts nothing: every count is
held against the bytes that are there, the file is streamed, and no more than about 45 MB are ever allocated.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

import itertools
import os
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

from convert.errors import GGUFError
from convert.files import explained

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
WINDOW_PATTERN = "attention.sliding_window_pattern"
_GEMMA_PERIOD = 6  # every sixth block looks past the sliding window, where the metadata does not say otherwise

# ggml type number -> (name, weights in a block, bytes of a block); removed and internal types are absent.
GGML_TYPES: Mapping[int, tuple[str, int, int]] = MappingProxyType(
    {
        0: ("F32", 1, 4),
        1: ("F16", 1, 2),
        2: ("Q4_0", 32, 18),
        3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24),
        8: ("Q8_0", 32, 34),
        10: ("Q2_K", 256, 84),
        11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176),
        14: ("Q6_K", 256, 210),
        16: ("IQ2_XXS", 256, 66),
        17: ("IQ2_XS", 256, 74),
        18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18),
        21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82),
        23: ("IQ4_XS", 256, 136),
        24: ("I8", 1, 1),
        25: ("I16", 1, 2),
        26: ("I32", 1, 4),
        27: ("I64", 1, 8),
        28: ("F64", 1, 8),
        29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2),
    }
)

_MODEL_TYPES = frozenset(name for name, _, _ in GGML_TYPES.values()) - {"I8", "I16", "I32", "I64", "F64"}
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

_MAX_KEYS = 4_096
_MAX_TENSORS = 16_384
_MAX_KEY_BYTES = 65_535
_MAX_NAME_BYTES = 63  # GGML_MAX_NAME less the closing NUL: a longer name makes ggml refuse the file
_MAX_STRING_BYTES = 1 << 20
_MAX_ITEMS = 4_000_000
_MAX_VOCABULARY = 524_288
_MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS
_MAX_EXPERTS = 1_024  # LLAMA_MAX_EXPERTS
_MAX_HEAD = 1 << 16
_KEPT_ITEMS = 64
_KEPT_BYTES = 8 << 20
_VALUE_BYTES = 100  # what Python takes for a short value, its key aside
_CHARACTER_BYTES = 4  # what it takes for each character of a text, if there is an emoji among them
_MAX_ALIGNMENT = 65_536


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """An array too long to keep: item type number, length, and where its items start in the file."""

    item_type: int
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: name, ggml type name, shape as (rows..., row length), place and size in bytes in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        return _product(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF says about itself.

    ``metadata`` holds an ``ArrayPlace`` in place of every long array; ``value_types`` gives the GGUF type number of
    each value and, for arrays, of the items; ``value_offsets`` where each value starts in the file.
    """

    path: Path
    version: int
    architecture: str
    metadata: Mapping[str, Any]
    value_types: Mapping[str, tuple[int, int | None]]
    value_offsets: Mapping[str, int]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    alignment: int
    file_size: int

    def tensor(self, name: str) -> TensorInfo | None:
        """Return the tensor of this name, or None."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)


def check_header(path: Path | str, architectures: tuple[str, ...] | None = ARCHITECTURES) -> Header:
    """Read and check the header of a model file; return what it says.

    Args:
        path: a GGUF file.
        architectures: the accepted values of ``general.architecture``; None accepts every name.

    Raises:
        GGUFError: malformed or truncated, an architecture not in the list, no tokenizer, sizes that contradict.
        FileError: the file is missing or unreadable.
    """
    header = read_header(path)
    _check_model(header, architectures)
    return header


def read_header(path: Path | str) -> Header:
    """Read a GGUF of any kind (model or adapter) and check its form, but not what a model needs.

    Raises:
        GGUFError: malformed or truncated. FileError: missing or unreadable.
    """
    path = Path(path)
    with explained(path), open(path, "rb") as file:
        try:
            return _Reader(file, path).header()
        except (struct.error, OverflowError, UnicodeDecodeError) as error:
            raise _bad(path, f"it is malformed ({error})") from error


def keeps_to_window(header: Header, block: int) -> bool:
    """Say whether a block of Gemma 3 looks no farther back than its sliding window, from a period or from a list."""
    key = f"{header.architecture}.{WINDOW_PATTERN}"
    told = header.metadata.get(key, _GEMMA_PERIOD)
    if isinstance(told, ArrayPlace):
        told = read_array(header, key)
    if isinstance(told, list):
        return any(told[block : block + 1])
    return not isinstance(told, int) or told == 0 or (block + 1) % told != 0


def read_array(header: Header, key: str) -> list[Any]:
    """Return a metadata array in full: numbers, or strings as ``bytes`` (GGUF strings need not be valid UTF-8).

    Raises:
        KeyError: no such key. GGUFError: the value is no array, or the file changed meanwhile.
    """
    value = header.metadata[key]
    if isinstance(value, list):
        return [item.encode() if isinstance(item, str) else item for item in value]
    if not isinstance(value, ArrayPlace):
        raise _bad(header.path, f"{key} is not an array")
    with explained(header.path), open(header.path, "rb") as file:
        reader = _Reader(file, header.path)
        reader.go_to(value.offset)
        if value.item_type == _STRING:
            return [reader.string(_MAX_STRING_BYTES) for _ in range(value.length)]
        form = _SCALARS[value.item_type]
        raw = reader.take(struct.calcsize(form) * value.length)
        return [item[0] for item in struct.iter_unpack(form, raw)]


def _bad(path: Path, reason: str) -> GGUFError:
    return GGUFError(f"{path.name} is not a usable GGUF: {reason}", "Build or download the file again.")


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


class _Reader:
    """A cursor that never reads past the end of the file and never allocates more than it was told to."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.kept = 0

    def fail(self, reason: str) -> NoReturn:
        raise _bad(self.path, reason)

    def go_to(self, position: int) -> None:
        self.file.seek(position)
        self.position = position

    def take(self, n_bytes: int) -> bytes:
        self.position += n_bytes
        if self.position > self.size:
            self.fail("it ends too early (truncated)")
        raw = self.file.read(n_bytes)
        if len(raw) != n_bytes:
            self.fail("it ends too early (truncated)")
        return raw

    def skip(self, n_bytes: int) -> None:
        self.position += n_bytes
        if self.position > self.size:
            self.fail("it ends too early (truncated)")
        self.file.seek(n_bytes, os.SEEK_CUR)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self, limit: int) -> bytes:
        return self.take(self._length(limit))

    def _text(self, limit: int) -> str:
        length = self._length(limit)
        self._keep(_CHARACTER_BYTES * length)
        return self.take(length).decode()

    def _length(self, limit: int) -> int:
        length: int = self.number("<Q")
        if length > limit:
            self.fail(f"a string claims {length} bytes")
        return length

    def _keep(self, n_bytes: int) -> None:
        """Count what is about to stay in memory."""
        self.kept += n_bytes
        if self.kept > _KEPT_BYTES:
            self.fail("its metadata is too large")

    def header(self) -> Header:
        if self.size == 0:
            self.fail("it is empty")
        if self.take(min(4, self.size)) != b"GGUF":
            self.fail("it does not start with the letters GGUF")
        version = self._version()
        n_tensors, n_keys = self.number("<Q"), self.number("<Q")
        if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
            self.fail(f"it claims {n_tensors} tensors and {n_keys} metadata keys")
        metadata, types, offsets = self._metadata(n_keys)
        alignment = self._alignment(metadata, types)
        claims = self._tensor_claims(n_tensors)
        data_offset = -(-self.position // alignment) * alignment
        tensors = self._place_tensors(claims, data_offset, alignment)
        return Header(
            path=self.path,
            version=version,
            architecture=self._architecture(metadata),
            metadata=MappingProxyType(metadata),
            value_types=MappingProxyType(types),
            value_offsets=MappingProxyType(offsets),
            tensors=tensors,
            data_offset=data_offset,
            alignment=alignment,
            file_size=self.size,
        )

    def _version(self) -> int:
        version: int = self.number("<I")
        if version not in (2, 3):
            swapped = version & 0xFFFF == 0 and version != 0
            self.fail("it is big-endian" if swapped else f"its version is {version}, and 2 and 3 are known")
        return version

    def _architecture(self, metadata: dict[str, Any]) -> str:
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            self.fail("it names no architecture")
        return architecture

    def _metadata(self, n_keys: int) -> tuple[dict[str, Any], dict[str, tuple[int, int | None]], dict[str, int]]:
        metadata: dict[str, Any] = {}
        types: dict[str, tuple[int, int | None]] = {}
        offsets: dict[str, int] = {}
        for _ in range(n_keys):
            key = self._text(_MAX_KEY_BYTES)
            if key in metadata:
                self.fail(f"the key {key[:60]!r} is there twice")
            value_type = self.number("<I")
            offsets[key] = self.position
            if value_type == _ARRAY:
                item_type, metadata[key] = self._array()
                types[key] = (value_type, item_type)
            else:
                metadata[key] = self._value(value_type)
                types[key] = (value_type, None)
        return metadata, types, offsets

    def _value(self, value_type: int) -> Any:
        self._keep(_VALUE_BYTES)
        if value_type == _STRING:
            return self._text(_MAX_STRING_BYTES)
        if value_type == _BOOL:
            return self._bool(self.take(1))
        if value_type not in _SCALARS:
            self.fail(f"it has a value of the unknown type {value_type}")
        return self.number(_SCALARS[value_type])

    def _bool(self, byte: bytes) -> bool:
        if byte not in (b"\0", b"\1"):
            self.fail(f"a true-or-false value holds {byte[0]}")
        return byte == b"\1"

    def _array(self) -> tuple[int, list[Any] | ArrayPlace]:
        item_type, length = self.number("<I"), self.number("<Q")
        if item_type != _STRING and item_type not in _SCALARS:
            self.fail(f"it has an array of the unknown type {item_type}")
        if length > _MAX_ITEMS:
            self.fail(f"an array claims {length} items")
        if length <= _KEPT_ITEMS:
            return item_type, [self._value(item_type) for _ in range(length)]
        place = ArrayPlace(item_type, length, self.position)
        if item_type != _STRING:
            self.skip(length * struct.calcsize(_SCALARS[item_type]))
            return item_type, place
        for _ in range(length):
            self.skip(self._length(_MAX_STRING_BYTES))
        return item_type, place

    def _alignment(self, metadata: dict[str, Any], types: dict[str, tuple[int, int | None]]) -> int:
        alignment = metadata.get("general.alignment", 32)
        power_of_two = isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0
        if not power_of_two or alignment > _MAX_ALIGNMENT or types.get("general.alignment", (4, None)) != (4, None):
            self.fail(f"its alignment is {alignment!r}")
        return int(alignment)

    def _tensor_claims(self, n_tensors: int) -> list[tuple[str, int, tuple[int, ...], int]]:
        claims = []
        names: set[str] = set()
        for _ in range(n_tensors):
            raw_name = self.string(_MAX_NAME_BYTES)
            name = raw_name.decode()
            if name in names or not name or "\0" in name:
                self.fail(f"the tensor name {name!r} is empty, unusable or there twice")
            names.add(name)
            n_dims = self.number("<I")
            if not 1 <= n_dims <= 4:
                self.fail(f"the tensor {name} claims {n_dims} dimensions")
            shape = tuple(self.number("<Q") for _ in range(n_dims))[::-1]
            claims.append((name, self.number("<I"), shape, self.number("<Q")))
        return claims

    def _place_tensors(
        self, claims: list[tuple[str, int, tuple[int, ...], int]], data_offset: int, alignment: int
    ) -> tuple[TensorInfo, ...]:
        tensors = []
        expected = 0
        for name, type_number, shape, offset in claims:
            if type_number not in GGML_TYPES:
                self.fail(f"the tensor {name} has the unknown type {type_number}")
            type_name, block, block_bytes = GGML_TYPES[type_number]
            if 0 in shape or _product(shape) >= 1 << 48 or shape[-1] % block:
                self.fail(f"the tensor {name} has the impossible shape {shape} for {type_name}")
            n_bytes = _product(shape) // block * block_bytes
            # ggml demands that tensors follow one another without holes, each padded to the alignment
            if offset != expected:
                self.fail(f"the tensor {name} starts at {offset}, not at {expected}")
            if data_offset + offset + n_bytes > self.size:
                self.fail(f"it ends within the tensor {name} (truncated)")
            expected = -(-(offset + n_bytes) // alignment) * alignment
            tensors.append(TensorInfo(name, type_name, shape, data_offset + offset, n_bytes))
        return tuple(tensors)


def _check_model(header: Header, architectures: tuple[str, ...] | None) -> None:
    def fail(reason: str) -> NoReturn:
        raise _bad(header.path, reason)

    if architectures is not None and header.architecture not in architectures:
        known = ", ".join(architectures)
        fail(f"its architecture is {header.architecture[:40]!r}, and the known ones are {known}")
    if header.metadata.get("general.type", "model") != "model":
        fail(f"it holds no model but a {header.metadata['general.type']!r}")
    if not header.tensors:
        fail("it holds no tensors")
    _check_types(header, fail)
    _check_sizes(header, fail)
    _check_tokenizer(header, fail)


def _check_types(header: Header, fail: Callable[[str], NoReturn]) -> None:
    """llama.cpp computes with vectors in 32 bits only, and with no whole numbers; it aborts where it meets others."""
    for tensor in header.tensors:
        is_vector = tensor.n_elements == tensor.shape[-1]
        if tensor.type not in (("F32",) if is_vector else _MODEL_TYPES):
            fail(f"the {'vector' if is_vector else 'matrix'} {tensor.name} is stored as {tensor.type}")


def _check_sizes(header: Header, fail: Callable[[str], NoReturn]) -> None:
    """Hold the model's dimensions against each other: zero heads, for one, would divide by zero in native code."""

    def whole_number(name: str, low: int, high: int, default: int | None = None) -> int:
        value = _told(header, name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            fail(f"{header.architecture}.{name} is {value!r}")
        return value

    n_blocks = whole_number("block_count", 1, _MAX_BLOCKS)
    width = whole_number("embedding_length", 1, 1 << 20)
    heads = whole_number("attention.head_count", 1, 1 << 16)
    whole_number("context_length", 1, 1 << 31)
    kv_heads = whole_number("attention.head_count_kv", 1, heads, heads)
    if heads % kv_heads:
        fail(f"{kv_heads} key-value heads do not divide {heads} heads")
    embedding = header.tensor("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[1] != width:
        fail("its token embeddings are missing or of the wrong shape")
    for block in range(n_blocks):
        if header.tensor(f"blk.{block}.attn_norm.weight") is None:
            fail(f"block {block} of {n_blocks} is missing")
    if header.architecture in ARCHITECTURES:
        _check_asserted(header, whole_number, width // heads, fail)


def _check_asserted(
    header: Header, whole_number: Callable[..., int], usual_head: int, fail: Callable[[str], NoReturn]
) -> None:
    """What llama.cpp asserts of the families in ``ARCHITECTURES``, and an assertion ends the whole process."""
    head = whole_number("attention.key_length", 2, _MAX_HEAD, usual_head)
    if head % 2:
        fail(f"its heads have {head} dimensions, which make no pairs")
    for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        for end in ("", "_swa"):
            whole_number(name + end, head, head, head)
    experts = whole_number("expert_count", 0, _MAX_EXPERTS, 0)
    whole_number("expert_used_count", min(experts, 1), experts, 0)
    for name in ("expert_group_count", "nextn_predict_layers"):
        whole_number(name, 0, 0, 0)
    epsilon, scaling = _told(header, "attention.layer_norm_rms_epsilon"), _told(header, "rope.scaling.type", "none")
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        fail(f"the epsilon of its norms is {epsilon!r}")
    if scaling not in _ROPE_SCALINGS:
        fail(f"its rope scaling is {scaling!r}")
    if _told(header, "attention.causal", True) is not True:
        fail("its attention looks ahead")
    if header.architecture == "gemma3" and _told(header, "attention.sliding_window", 0) != 0:
        blocks = range(_told(header, "block_count"))
        if not any(keeps_to_window(header, block) for block in blocks):
            fail("no block keeps to its sliding window")


def _told(header: Header, name: str, default: Any = None) -> Any:
    """What the metadata under the architecture's own prefix says."""
    return header.metadata.get(f"{header.architecture}.{name}", default)


def _check_tokenizer(header: Header, fail: Callable[[str], NoReturn]) -> None:
    kind = header.metadata.get("tokenizer.ggml.model")
    tokens = _array_length(header, "tokenizer.ggml.tokens", (_STRING,))
    if not isinstance(kind, str) or not tokens:
        fail("it has no tokenizer")
    if tokens > _MAX_VOCABULARY:
        fail(f"its vocabulary claims {tokens} tokens")
    for key, types in (("token_type", (4, 5)), ("scores", (6,))):
        length = _array_length(header, f"tokenizer.ggml.{key}", types)
        if length is not None and length != tokens:
            fail(f"{tokens} tokens but {length} entries in tokenizer.ggml.{key}")
    if kind == "gpt2" and not _array_length(header, "tokenizer.ggml.merges", (_STRING,)):
        fail("its tokenizer has no merges")
    embedding = header.tensor("token_embd.weight")
    if embedding is not None and embedding.shape[0] != tokens:
        fail(f"{tokens} tokens but {embedding.shape[0]} token embeddings")
    _check_token_ids(header, tokens, fail)
    _check_tokens_differ(header, tokens, fail)


def _array_length(header: Header, key: str, item_types: tuple[int, ...]) -> int | None:
    """Return an array's length, None where the key is absent, 0 where it holds something else."""
    value = header.metadata.get(key)
    if value is None:
        return None
    if isinstance(value, ArrayPlace):
        return value.length if value.item_type in item_types else 0
    return len(value) if isinstance(value, list) else 0


def _check_token_ids(header: Header, n_tokens: int, fail: Callable[[str], NoReturn]) -> None:
    for key, value in header.metadata.items():
        is_id = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        if is_id and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n_tokens):
            fail(f"{key} is {value!r}, outside the vocabulary of {n_tokens}")


def _check_tokens_differ(header: Header, n_tokens: int, fail: Callable[[str], NoReturn]) -> None:
    """llama.cpp asserts that no token is there twice, and an assertion ends the whole process."""
    with explained(header.path), open(header.path, "rb") as file:
        reader = _Reader(file, header.path)
        reader.go_to(header.value_offsets["tokenizer.ggml.tokens"] + 12)  # past the type and number of the items
        # an empty token is given this name by llama.cpp
        tokens = (reader.string(_MAX_STRING_BYTES) or b"[EMPTY_%d]" % index for index in range(n_tokens))
        hashes = sorted(array("q", map(hash, tokens)))
    if any(left == right for left, right in itertools.pairwise(hashes)):
        fail("a token is in its vocabulary twice")
