"""Embeddings by the real default model: computed once, taken up after a kill, kept apart by model and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.corpora import embeddings
from toolkit.corpora.embeddings import DEFAULT_MODEL, embed, locate, model_identity, require_embedding_packages
from toolkit.errors import EmotionLRMError, ModelError

TEXTS = ["Thank you so much!", "Thanks a lot, really.", "The bridge opened in 1932.", "I hate this.", "So angry now."]
pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("embeddings")
    return folder, np.array(embed(TEXTS, DEFAULT_MODEL, folder))


def test_the_default_model_comes_from_its_package() -> None:
    assert (Path(locate(DEFAULT_MODEL)) / "model.safetensors").is_file()
    assert len(model_identity(DEFAULT_MODEL)) == 64
    assert locate("some/other-model") == model_identity("some/other-model") == "some/other-model"


def test_rows_have_length_one_and_like_texts_lie_close(first: tuple[Path, Any]) -> None:
    _, vectors = first
    assert vectors.shape == (5, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    close = vectors @ vectors.T
    assert close[0, 1] > close[0, 2]
    assert close[3, 4] > close[3, 2]


def refuse(_: str) -> Any:
    raise AssertionError("the model was loaded again")


def test_what_is_there_is_mapped_and_not_computed_again(first: tuple[Path, Any], monkeypatch: Any) -> None:
    folder, vectors = first
    monkeypatch.setattr(embeddings, "_load", refuse)
    again = embed(TEXTS, DEFAULT_MODEL, folder)
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, vectors)
    assert [path.suffix for path in folder.iterdir()] == [".npy"]
    with pytest.raises(AssertionError):
        embed(TEXTS[::-1], DEFAULT_MODEL, folder)


def test_a_killed_run_goes_on_after_the_last_whole_chunk(
    tmp_path: Path, first: tuple[Path, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", 2)
    told: list[int] = []

    def killed(done: int, _: int) -> None:
        told.append(done)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(TEXTS, DEFAULT_MODEL, tmp_path, killed)
    chunks = sorted(tmp_path.iterdir())
    assert len(chunks) == 2
    chunks[1].write_bytes(chunks[1].read_bytes()[:-9])  # torn, as on a disk that lost its last block
    before = chunks[0].stat().st_mtime_ns
    seen: list[int] = []

    def watched(done: int, _: int) -> None:
        seen.append(done)
        assert chunks[0].stat().st_mtime_ns == before

    vectors = embed(TEXTS, DEFAULT_MODEL, tmp_path, watched)
    assert (told, seen) == ([2, 4], [2, 4, 5])
    assert np.allclose(vectors, first[1], atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_torn_file_is_computed_anew(tmp_path: Path, first: tuple[Path, Any]) -> None:
    (path,) = first[0].iterdir()
    (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    assert np.allclose(embed(TEXTS, DEFAULT_MODEL, tmp_path), first[1], atol=1e-5)


def test_a_model_that_is_none_is_an_expected_failure(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        embed(TEXTS, str(tmp_path), tmp_path / "out")


def test_missing_packages_are_named_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    require_embedding_packages()
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None if name == "cleanlab" else object())
    with pytest.raises(EmotionLRMError, match="needs cleanlab") as refused:
        require_embedding_packages()
    assert 'pip install ".[embeddings]"' in refused.value.hint
