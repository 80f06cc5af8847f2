"""A llama.cpp of another layout is refused before it does harm, and one that forks wrongly is found out."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp
import pytest

from toolkit import EmotionModel
from toolkit.base import find_base_gguf, load_base
from toolkit.errors import ModelError
from toolkit.inference import abi
from toolkit.inference.engine import Engine
from toolkit.inference.native import NativeContext


@pytest.fixture(scope="module")
def base() -> Path:
    return find_base_gguf(load_base("smollm2-135m"))


def library(**changes: Any) -> SimpleNamespace:
    """The real bindings, with changes."""
    names = ("llama_context_params", "llama_model_params", "llama_batch", "__version__")
    names += ("llama_context_default_params", "llama_model_default_params")
    names += ("llama_token_data", "llama_token_data_array")
    return SimpleNamespace(**{**{name: getattr(llama_cpp, name) for name in names}, **changes})


def test_the_installed_release_fits() -> None:
    abi.check_abi()
    assert list(abi.differences(llama_cpp)) == []


def test_the_pinned_release_is_the_one_that_is_required() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    required = re.search(r'"llama-cpp-python==([0-9.]+)"', project.read_text(encoding="utf-8"))
    assert required is not None
    assert required[1] == abi.PINNED


def test_the_check_costs_next_to_nothing() -> None:
    def seconds() -> float:
        began = time.process_time()
        abi.check_abi()
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.005


class Longer(ctypes.Structure):
    """The batch with one more field, as a later release might have it."""

    _fields_ = [*llama_cpp.llama_batch._fields_, ("added", ctypes.c_int32)]


def with_default(field: str, value: float) -> Any:
    real = llama_cpp.llama_context_default_params

    def defaults() -> Any:
        params = real()
        setattr(params, field, value)
        return params

    return defaults


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama_batch": Longer}, "llama_batch has 64 bytes and 8 fields, not the 56 and 7"),
        ({"llama_model_params": None}, "it has no llama_model_params"),
        ({"llama_context_default_params": with_default("n_ctx", 7)}, "default of llama_context_params.n_ctx is 7"),
        ({"llama_token_data_array": llama_cpp.llama_token_data}, "llama_token_data_array has 12 bytes and 3 fields"),
        ({"llama_token_data": None}, "it has no llama_token_data"),
        ({"llama_context_default_params": with_default("flash_attn_type", 1)}, "flash_attn_type is 1, not the -1"),
        ({"llama_context_default_params": with_default("kv_unified", 1)}, "kv_unified is True, not the 0"),
    ],
)
def test_another_layout_is_refused_and_the_pinned_release_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        abi.check_abi(library(**changes, __version__="9.9.9"))
    assert "9.9.9" in str(refused.value)
    assert f"llama-cpp-python=={abi.PINNED}" in refused.value.hint


def test_a_model_is_not_loaded_by_another_release(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setattr(llama_cpp, "llama_context_default_params", with_default("n_batch", 0))
    with pytest.raises(ModelError, match=re.escape(abi.PINNED)):
        EmotionModel.load(base)


def test_forked_and_packed_sequences_read_as_single_ones(base: Path) -> None:
    assert abi.self_test(base) < 0.05


def test_a_model_with_two_caches_moves_both(narrow_gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert abi.self_test(narrow_gemma) < 0.001
    save = NativeContext.save
    monkeypatch.setattr(NativeContext, "save", lambda self, sequence: save(self, sequence)[:-1])
    with pytest.raises(ModelError, match="could not take up a sequence"):
        abi.self_test(narrow_gemma)


def no_fork(self: NativeContext, source: int, target: int) -> None:
    """A copy of sequences that does nothing."""


def test_the_self_test_finds_a_fork_that_copies_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeContext, "fork", no_fork)
    with pytest.raises(ModelError, match="differs from the same one alone"):
        abi.self_test(base)


def test_a_model_whose_forks_copy_nothing_is_not_loaded(
    shallow_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeContext, "fork", no_fork)
    with pytest.raises(ModelError, match="differs from the same one alone") as refused:
        EmotionModel.load(shallow_path("F32", layers=1))
    assert f"llama-cpp-python=={abi.PINNED}" in refused.value.hint


def test_the_self_test_leaves_nothing_behind(shallow_path: Callable[..., Path]) -> None:
    with EmotionModel.load(shallow_path("F32", layers=1), threads=1) as model:
        engine = model.engine
        assert isinstance(engine, Engine)
        assert engine.contexts == [engine.context]
        for sequence in range(4):
            assert llama_cpp.llama_memory_seq_pos_max(engine.context.memory, sequence) == -1
