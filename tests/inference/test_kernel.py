"""Our product of bfloat16 matrices: right for every shape, the same for every neighbour, and never in the way."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from convert.file_types import cpu_flags
from toolkit.inference import kernel

BF16, F16, F32 = 30, 1, 0  # as in ggml.h
OURS = (BF16, BF16, F32)
needs_bfloat16 = pytest.mark.skipif(
    not cpu_flags() >= kernel._NEEDED, reason="the processor does not multiply bfloat16"
)


def halved(values: np.ndarray) -> np.ndarray:
    """The upper half of every float32: bfloat16, cut."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widened(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


class Product:
    """The library by itself, with a product behind it that notes what it is asked for."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.asked: list[tuple[int, ...]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_bool, ctypes.c_void_p, *kernel._SIZES, *kernel._MATRIX * 3, *[ctypes.c_int] * 3
        )

        def original(_thread: int, rows: int, count: int, depth: int, *rest: int) -> bool:
            self.asked.append((rows, count, depth, *rest[-3:]))
            return True

        self._original = kind(original)
        self.library.matmul_original.argtypes = [ctypes.c_void_p]
        self.library.matmul_original(ctypes.cast(self._original, ctypes.c_void_p))
        self.library.matmul_use.argtypes = [ctypes.c_bool]
        self.library.matmul_use(True)
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


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(kernel._compiled(tmp_path_factory.mktemp("kernels")))


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


# Where it is not used, somebody learns why and nothing else changes


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
        ("group * LANES + i < count; i++", "group * LANES + i < count - 1; i++"),  # the last token
        ("if (some > 48)", "if (some > 64)"),  # most tokens are left out
        ("= _mm512_setzero_ps()", "= _mm512_set1_ps(1)"),
        ("stride + 2 * pair, sizeof two", "stride + pair, sizeof two"),
        ("next[4 + j] =", "next[8 + j] ="),
    ],
)
def test_a_wrong_product_is_noticed(right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = kernel.SOURCE.read_text(encoding="utf-8")
    assert code.count(right) == 1
    source = tmp_path / "wrong.cpp"
    source.write_text(code.replace(right, wrong), encoding="utf-8")
    monkeypatch.setattr(kernel, "SOURCE", source)
    with pytest.raises(kernel._UnfitError, match="multiplies wrongly"):
        kernel._load(kernel._compiled(tmp_path))


@needs_bfloat16
def test_until_it_can_hand_on_it_takes_nothing(tmp_path: Path) -> None:
    """Loaded as a file of its own: the one in its place has its state."""
    copy = shutil.copy(kernel._compiled(tmp_path), tmp_path / "copy.so")
    assert not kernel._multiplies(kernel._load(Path(copy)).llamafile_sgemm)


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
from toolkit.inference import kernel
with EmotionModel.load(sys.argv[1]) as model:
    read = [list(reading.scores.values()) for reading in model.analyze_many(bench_texts()[:40], mode="fast")]
    with kernel.llama_cpp_alone():
        before = kernel.products()
        model.analyze("What a day!", mode="fast")
        idle = kernel.products() == before
print(json.dumps({"read": read, "products": before, "idle": idle, "why_not": kernel.install()}))
"""


@needs_bfloat16
def test_a_model_reads_the_same_with_it(default_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, ours = {}, {}
    for told, switch in ((without, "llama.cpp"), (ours, "")):
        monkeypatch.setenv(kernel.SWITCH, switch)
        command = [sys.executable, "-c", CODE, str(default_model_path)]
        told.update(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    assert (without["products"], without["why_not"]) == (0, "EMOTION_LRM_KERNEL says so")
    assert ours["products"] > 7 * 30  # seven matrices a layer and pass
    assert (ours["why_not"], ours["idle"]) == ("", True)
    assert np.abs(np.array(ours["read"]) - without["read"]).max() < 0.05  # sums in another order, in 16 bits
