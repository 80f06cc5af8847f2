"""A shelf whose models are stand-ins in real worker processes, and readings with known numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from toolkit.apps.page.shelf import Shelf
from toolkit.inference import supervisor

STAND_IN = str(Path(__file__).parents[2] / "inference")


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[None]:
    """Workers with the stand-in instead of a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STAND_IN)
        patch.setattr(supervisor, "ENTRY", "stand_in:main")
        yield


@pytest.fixture
def shelf(stand_ins: None) -> Iterator[Shelf]:  # noqa: ARG001
    """A shelf of its own for a test."""
    made = Shelf()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_shelf(stand_ins: None) -> Iterator[Shelf]:  # noqa: ARG001
    """One shelf for all tests of a module."""
    made = Shelf()
    yield made
    made.close()


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., Path]:
    """Writes the smallest GGUF that is sound, with what it says of itself under ``emotion_lrm.``"""

    def write(path: Path, **own: str) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        for key, value in own.items():
            writer.add_string(f"emotion_lrm.{key}", value)
        writer.add_block_count(1)
        writer.add_context_length(64)
        writer.add_embedding_length(4)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "ab"])
        writer.add_token_merges(["a b"])
        writer.add_tensor("token_embd.weight", np.zeros((3, 4), np.float32))
        writer.add_tensor("blk.0.attn_norm.weight", np.ones(4, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
