"""Our products and attention: right for every shape, the same for every neighbour, and never in the way."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from convert.file_types import cpu_flags
from convert.ggml import BF16, F16, F32, Tensor
from toolkit.errors import ModelError
from toolkit.inference import kernel

OURS = (BF16, BF16, F32)
needs_bfloat16 = pytest.mark.skipif(
    not cpu_flags() >= kernel._NEEDED, reason="the processor does not multiply bfloat16"
)


def halved(values: np.ndarray) -> np.ndarray:
    """The upper half of every float32: bfloat16, cut."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def use_before(original: Any, library: ctypes.CDLL, part: str) -> None:
    """Use a part of the library, with ``original`` behind it."""
    set_original, use = (getattr(library, f"{part}_{name}") for name in ("original", "use"))
    set_original.argtypes, use.argtypes = [ctypes.c_void_p], [ctypes.c_bool]
    set_original(ctypes.cast(original, ctypes.c_void_p))
    use(True)


class Product:
    """Our product by itself, with one behind it that notes what it is asked for."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.asked: list[tuple[int, ...]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_bool, ctypes.c_void_p, *kernel._SIZES, *kernel._MATRIX * 3, *[ctypes.c_int] * 3
        )

        def original(_thread: int, rows: int, count: int, depth: int, *rest: int) -> bool:
            self.asked.append((rows, count, depth, *rest[-3:]))
            return True

        self._original = kind(original)
        use_before(self._original, library, "matmul")
        self.function = self.library.llamafile_sgemm
        self.function.argtypes, self.function.restype = kind._argtypes_, kind._restype_  # type: ignore[attr-defined]

    def __call__(
        self,
        weights: np.ndarray,
        tokens: np.ndarray,
        threads: int = 1,
        pad: int = 0,
        types: tuple[int, ...] = (BF16, BF16, F32),
    ) -> np.ndarray:
        """The product with rows that lie ``pad`` values apart."""
        (rows, depth), count = weights.shape, len(tokens)
        left, right = (np.pad(one, ((0, 0), (0, pad))) for one in (weights, tokens))
        out = np.full((count, rows + pad), np.nan, np.float32)
        for number in range(threads):
            thread = np.array([number, threads], np.intc)
            places = [x for one in (left, right, out) for x in (one.ctypes.data, depth + pad)]
            places[-1] = rows + pad
            assert self.function(thread.ctypes.data, rows, count, depth, *places, *types)
        assert np.isnan(out[:, rows:]).all()  # nothing is written beside it
        return out[:, :rows]


class Attention:
    """Our attention by itself, with one behind it that counts how often it is asked."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library, self.asked = library, 0
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

        def original(*_: int) -> None:
            self.asked += 1

        self._original = kind(original)
        use_before(self._original, library, "attention")
        self.function = self.library.ggml_compute_forward_flash_attn_ext
        self.function.argtypes = [ctypes.c_void_p, ctypes.POINTER(Tensor)]

    def __call__(self, *arrays: np.ndarray, threads: int = 1) -> np.ndarray:
        return kernel._attend(self.function, *arrays, threads)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A copy that nobody else uses."""
    return ctypes.CDLL(str(kernel._compiled(tmp_path_factory.mktemp("kernels"))))


@pytest.fixture(scope="module")
def product(library: ctypes.CDLL) -> Product:
    return Product(library)


@pytest.fixture(scope="module")
def attention(library: ctypes.CDLL) -> Attention:
    return Attention(library)


def matrices(rows: int, count: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(rows + count + depth)
    return halved(chance.normal(size=(rows, depth))), halved(chance.normal(size=(count, depth)))


@needs_bfloat16
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("rows", "count", "depth"),
    [
        (16, 2, 32),
        (48, 15, 64),
        (64, 16, 96),
        (16, 17, 8192),
        (192, 33, 576),
        (576, 48, 64),
        (80, 64, 32),
        (208, 149, 96),
    ],
)
def test_every_shape_is_multiplied_rightly(product: Product, rows: int, count: int, depth: int, threads: int) -> None:
    weights, tokens = matrices(rows, count, depth)
    expected = widened(tokens).astype(np.float64) @ widened(weights).astype(np.float64).T
    found = product(weights, tokens, threads, pad=5)
    assert np.abs(found - expected).max() < 1e-5 * depth
    assert not product.asked


@needs_bfloat16
def test_a_value_does_not_depend_on_its_neighbours(product: Product) -> None:
    """Nor on the number of threads: bit for bit."""
    weights, tokens = matrices(96, 150, 576)
    together = product(weights, tokens)
    for first, count in ((0, 2), (1, 9), (40, 17), (100, 33), (3, 64), (80, 70)):
        some = slice(first, first + count)
        assert np.array_equal(product(weights, tokens[some], threads=1 + count % 3), together[some])


@needs_bfloat16
@pytest.mark.parametrize(
    ("rows", "count", "depth", "types"),
    [
        (32, 1, 64, OURS),
        (24, 8, 64, OURS),
        (32, 8, 48, OURS),
        (16, 2, 8224, OURS),
        (32, 8, 64, (F16, F16, F32)),
        (32, 8, 64, (BF16, F32, F32)),
        (32, 8, 64, (BF16, BF16, BF16)),
    ],
)
def test_what_it_is_not_made_for_is_handed_on(
    product: Product, rows: int, count: int, depth: int, types: tuple[int, ...]
) -> None:
    assert np.isnan(product(*matrices(rows, count, depth), types=types)).all()
    assert [product.asked.pop()] == [(rows, count, depth, *types)]
    assert not product.asked
    product.library.matmul_use(False)
    try:
        product(*matrices(32, 8, 64))
        assert product.asked.pop() == (32, 8, 64, BF16, BF16, F32)
    finally:
        product.library.matmul_use(True)


# Attention


def drawn(streams: int, heads: int, shared: int, rows: int, cells: int, depth: int) -> tuple[np.ndarray, ...]:
    """Queries, keys, values and a mask that lets every row see nothing yet; keys lie in rows of a wider cache."""
    chance = np.random.default_rng(rows + cells + depth)
    queries = chance.normal(size=(streams, heads, rows, depth)).astype(np.float32)
    cache = chance.normal(size=(2, streams, cells, heads // shared, depth)).astype(np.float16)
    keys, values = cache.transpose(0, 1, 3, 2, 4)
    return queries, keys, values, np.full((streams, 1, rows, cells), -np.inf, np.float16)


def see(mask: np.ndarray, row: int, cell: int, rows: int, head: int) -> None:
    """Let a text of so many rows see the first cells and its own, which begin at ``cell``."""
    for i in range(rows):
        mask[..., row + i, :head] = mask[..., row + i, cell : cell + i + 1] = 0


def attended(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same in 64 bits; nothing where a row sees nothing."""
    shared = queries.shape[1] // keys.shape[1]
    keys, values = (one.repeat(shared, 1).astype(np.float64) for one in (keys, values))
    weights = np.exp(np.einsum("shrd,shcd->shrc", queries, keys) / 8 + mask)
    sums = weights.sum(-1, keepdims=True)
    return np.einsum("shrc,shcd->srhd", np.divide(weights, sums, where=sums > 0, out=weights), values)


@needs_bfloat16
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("streams", "heads", "shared", "rows", "cells", "depth", "texts"),
    [
        (1, 9, 3, 63, 256, 64, (20, 3, 40)),  # SmolLM2
        (1, 9, 3, 200, 512, 64, (200,)),
        (32, 9, 3, 1, 256, 64, (1,)),
        (1, 14, 7, 40, 300, 64, (7, 13, 20)),  # Qwen2.5
        (1, 16, 2, 9, 64, 128, (9,)),  # Qwen3
        (1, 4, 4, 18, 96, 256, (17, 1)),  # Gemma 3
        (2, 6, 1, 20, 75, 24, (10, 9)),  # the last row sees nothing
        (1, 16, 16, 33, 48, 40, (1, 1, 1, 30)),
    ],
)
def test_every_shape_is_attended_rightly(
    attention: Attention,
    streams: int,
    heads: int,
    shared: int,
    rows: int,
    cells: int,
    depth: int,
    texts: tuple[int, ...],
    threads: int,
) -> None:
    layer = drawn(streams, heads, shared, rows, cells, depth)
    head = cells - rows - 3
    for number, length in enumerate(texts):
        before = sum(texts[:number])
        see(layer[3], before, head + before + number % 2, length, head)
    assert np.abs(attention(*layer, threads=threads) - attended(*layer)).max() < 5e-6
    assert not attention.asked


@needs_bfloat16
def test_large_scores_and_rows_that_see_less_than_the_one_before(attention: Attention) -> None:
    queries, keys, values, mask = drawn(1, 3, 3, 40, 128, 64)
    mask[np.random.default_rng(0).random(mask.shape) < 0.4] = 0
    queries *= 100  # scores of some hundred, beyond what e to the power of them could hold
    found = attention(queries, keys, values, mask)
    scores = np.einsum("shrd,shcd->shrc", queries, keys.repeat(3, 1).astype(np.float64)) / 8 + mask
    assert np.isnan(attention(queries * np.nan, keys, values, mask)[mask[:, 0].min(-1) == 0]).all()
    assert scores[mask.repeat(3, 1) == 0].max() > 300
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    assert np.abs(found - np.einsum("shrc,shcd->srhd", weights, values.repeat(3, 1))).max() < 1e-4


@needs_bfloat16
def test_a_row_does_not_depend_on_its_neighbours(attention: Attention) -> None:
    """Nor on the number of threads, nor on which cells it has: bit for bit."""
    queries, keys, values, mask = drawn(1, 9, 3, 150, 300, 64)
    texts, row = {}, 0
    for length in (1, 30, 5, 17, 2, 60, 35):
        see(mask, row, 90 + row, length, 61)
        texts[row] = length
        row += length
    together = attention(queries, keys, values, mask)
    for row, length in texts.items():
        alone = np.full((1, 1, length, 128), -np.inf, np.float16)
        see(alone, 0, 64, length, 61)
        own = np.r_[:61, 61:64, 90 + row : 90 + row + 64]  # elsewhere, behind the same cells
        some = (np.ascontiguousarray(one[:, :, own]) for one in (keys, values))
        found = attention(queries[:, :, row : row + length], *some, alone, threads=1 + row % 3)
        assert np.array_equal(found, together[:, row : row + length])


def source(layer: Tensor, number: int) -> Tensor:
    return Tensor.from_address(layer.src[number])


@needs_bfloat16
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.op_params.__setitem__(1, 0x3F000000),  # ALiBi of .5
        lambda layer: layer.op_params.__setitem__(2, 0x42480000),  # scores capped at 50
        lambda layer: layer.src.__setitem__(4, layer.src[3]),  # sinks
        lambda layer: layer.src.__setitem__(3, None),  # no mask
        lambda layer: setattr(source(layer, 1), "type", BF16),
        lambda layer: setattr(source(layer, 2), "type", F32),
        lambda layer: source(layer, 1).ne.__setitem__(0, 272),
        lambda layer: source(layer, 2).ne.__setitem__(1, 63),
        lambda layer: source(layer, 2).nb.__setitem__(0, 128),  # transposed
        lambda layer: source(layer, 0).ne.__setitem__(2, 17 * 3),
    ],
)
def test_attention_that_it_is_not_made_for_is_handed_on(
    attention: Attention, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, keys, values, mask = drawn(1, 9, 3, 4, 64, 64)
    see(mask, 0, 0, 4, 0)

    def changed(_thread: int, layer: Tensor) -> None:
        change(layer)
        attention.function(_thread, layer)

    monkeypatch.setattr(attention, "asked", 0)
    found = kernel._attend(changed, queries, keys, values, mask)
    assert attention.asked == 1
    assert np.isnan(found).all()


@needs_bfloat16
def test_attention_is_handed_on_while_it_is_not_wanted(attention: Attention, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "asked", 0)
    attention.library.attention_use(False)
    try:
        assert np.isnan(attention(*drawn(1, 9, 3, 4, 64, 64), threads=2)).all()
    finally:
        attention.library.attention_use(True)
    assert attention.asked == 2  # by every thread, as they wait for each other


# Where ours is not used, somebody learns why and nothing else changes


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What `install` says in a process that has not imported llama_cpp, on a processor that multiplies bfloat16."""
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(tmp_path))
    monkeypatch.delenv(kernel.SWITCH, raising=False)
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    monkeypatch.setattr(kernel.platform, "system", lambda: "Linux")
    monkeypatch.setattr(kernel.platform, "machine", lambda: "x86_64")
    monkeypatch.delitem(kernel.sys.modules, "llama_cpp", raising=False)
    monkeypatch.setattr(kernel, "cpu_flags", lambda: kernel._NEEDED)
    monkeypatch.setattr(kernel, "_load", lambda _: pytest.fail("it was loaded"))
    monkeypatch.setattr(kernel, "_library", None)
    return kernel.install.__wrapped__


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.setenv(kernel.SWITCH, "llama.cpp"), "EMOTION_LRM_KERNEL says so"),
        (lambda m: m.setattr(kernel, "cpu_flags", lambda: {"avx2"}), "does not multiply bfloat16"),
        (lambda m: m.setattr(kernel.platform, "system", lambda: "Darwin"), "made for Linux on x86-64"),
        (lambda m: m.setenv("LLAMA_CPP_LIB_PATH", "/elsewhere"), "names another llama.cpp"),
        (
            lambda m: m.setattr(kernel, "version", Mock(side_effect=PackageNotFoundError("llama"))),
            "metadata was found for llama",
        ),
        (lambda m: m.setitem(kernel.sys.modules, "llama_cpp", kernel), "imported before"),
        (lambda m: m.setattr(kernel, "version", lambda _: "0.3.99"), "made for llama-cpp-python 0.3"),
        (lambda m: m.setattr(kernel, "find_spec", lambda _: Mock(origin="/elsewhere/__init__.py")), "has another name"),
        (lambda m: m.setattr(kernel.shutil, "which", lambda _: None), "no C\\+\\+ compiler"),
        (lambda m: m.setattr(kernel, "_COMPILE", ("--nonsense",)), "cannot compile it: .*nonsense"),
        (lambda m: m.setattr(kernel, "_COMPILERS", ("false",)), "false cannot compile it"),
    ],
)
def test_llama_cpp_multiplies_by_itself_where_ours_cannot(
    change: Callable[[pytest.MonkeyPatch], None], why: str, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert_told(fresh(), why)


def assert_told(told: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        raise ValueError(told)


@needs_bfloat16
def test_a_library_that_others_may_write_is_not_used(fresh: Callable[[], str], tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    path = kernel._compiled(folder)
    for shared in (path, folder):
        mode = shared.stat().st_mode
        shared.chmod(0o777)
        assert_told(fresh(), f"{shared.name} may be written by others")
        shared.chmod(mode)


@needs_bfloat16
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("i * Depth, layer.scale", "i * Depth, 1.0f"),
        ("lanes(seen - i), exponential", "lanes(padded - i), exponential"),  # cells that the row does not see
        ("static_cast<__mmask16>(visible >>", "static_cast<__mmask16>(1 & visible >>"),
        ("cell = 0; cell < cells; cell++", "cell = 1; cell < cells; cell++"),
        ("block * BLOCK, behind", "block * BLOCK + 1, behind"),
        ("group * LANES + i < count; i++", "group * LANES + i < count - 1; i++"),  # the last token
        ("if (some > 48)", "if (some > 64)"),  # most tokens are left out
        ("sum[row][group] = _mm512_setzero_ps()", "sum[row][group] = _mm512_set1_ps(1)"),
        ("stride + 2 * pair, sizeof two", "stride + pair, sizeof two"),
        ("next[4 + j] =", "next[8 + j] ="),
    ],
)
def test_a_wrong_one_is_noticed(right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {name: (kernel.FOLDER / name).read_text(encoding="utf-8") for name in kernel.FILES}
    assert sum(one.count(right) for one in code.values()) == 1
    for name, one in code.items():
        (tmp_path / name).write_text(one.replace(right, wrong), encoding="utf-8")
    monkeypatch.setattr(kernel, "FOLDER", tmp_path)
    with pytest.raises(kernel._UnfitError, match=r"multiplies wrongly|attention is wrong"):
        kernel._load(kernel._compiled(tmp_path / "kernels"))


@needs_bfloat16
def test_until_it_can_hand_on_it_takes_nothing(tmp_path: Path) -> None:
    """Loaded as a file of its own: the one in its place has its state."""
    copy = shutil.copy(kernel._compiled(tmp_path), tmp_path / "copy.so")
    assert not kernel._multiplies(kernel._load(Path(copy)).llamafile_sgemm)
    code = "import sys; from pathlib import Path; from toolkit.inference.kernel import _attends, _load; "
    code += "_attends(_load(Path(sys.argv[1])).ggml_compute_forward_flash_attn_ext)"
    ended = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGABRT, (
        ended.stderr
    )  # nobody is left to ask: no result is better than a wrong one


@pytest.mark.parametrize("failure", [lambda _: "", Mock(side_effect=OSError("no /proc"))])
def test_who_cannot_hand_on_says_so_every_time(
    failure: Callable[..., str], fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_check_fit", lambda: None)
    monkeypatch.setattr(kernel, "_compiled", lambda folder: folder)
    monkeypatch.setattr(kernel, "_load", Mock())
    monkeypatch.setattr(kernel, "_stranded", None)
    monkeypatch.setattr(kernel.Path, "read_text", failure)  # what is mapped
    for _ in range(2):  # the second time llama_cpp has been imported
        with pytest.raises(ModelError, match="cannot hand on") as told:
            fresh()
        assert told.value.hint == "Set EMOTION_LRM_KERNEL=llama.cpp and start again."


@needs_bfloat16
def test_it_brings_no_name_that_others_could_take(tmp_path: Path) -> None:
    """Whoever is loaded later looks there first."""
    command = ["nm", "-D", "--defined-only", "-f", "just-symbols", str(kernel._compiled(tmp_path))]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    parts = {f"{part}_{name}" for part in kernel._PARTS for name in ("original", "use", "taken")}
    assert set(found) == parts | set(kernel._PARTS.values())


@needs_bfloat16
def test_it_is_compiled_once_and_again_where_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kernel._compiled(tmp_path)
    whole = path.read_bytes()
    with monkeypatch.context() as nowhere:
        nowhere.setattr(kernel.shutil, "which", lambda _: None)
        assert kernel._compiled(tmp_path) == path
    path.write_bytes(whole[:900])  # to load that would end the process
    assert kernel._compiled(tmp_path).read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


CODE = """
import json, sys
from toolkit.inference.abi import check_abi
check_abi()  # as `bench` does first
from toolkit import EmotionModel
from toolkit.benchmark.measure import bench_texts
from toolkit.errors import ModelError
from toolkit.inference import kernel
with EmotionModel.load(sys.argv[1]) as model:
    read = [list(reading.scores.values()) for reading in model.analyze_many(bench_texts()[:40], mode="fast")]
    with kernel.llama_cpp_alone():
        before = kernel.taken("matmul"), kernel.taken("attention")
        model.analyze("What a day!", mode="fast")
        idle = (kernel.taken("matmul"), kernel.taken("attention")) == before
print(json.dumps({"read": read, "taken": before, "idle": idle, "why_not": kernel.install()}))
"""


@needs_bfloat16
def test_a_model_reads_the_same_with_it(default_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, ours = {}, {}
    for told, switch in ((without, "llama.cpp"), (ours, "")):
        monkeypatch.setenv(kernel.SWITCH, switch)
        command = [sys.executable, "-c", CODE, str(default_model_path)]
        told.update(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    assert (without["taken"], without["why_not"]) == ([0, 0], "EMOTION_LRM_KERNEL says so")
    products, attentions = ours["taken"]
    assert products > 7 * 30  # seven matrices a layer and pass
    assert attentions > 2 * 30
    assert (ours["why_not"], ours["idle"]) == ("", True)
    assert np.abs(np.array(ours["read"]) - without["read"]).max() < 0.05  # sums in another order, in 16 bits
