"""Base models: where the weights of one are found, whole or in the parts that several packages carry."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from toolkit.assets import asset, cache_folder
from toolkit.base import BaseModelConfig, GGUFSource, find_base_gguf, load_base
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import check_boundaries, frame_for, load_prompt
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ModelError
from toolkit.inference.native import NativeModel
from toolkit.inference.store import chat_template

BASES = [load_base(path.stem) for path in sorted(asset("models", "configs", "base").glob("*.yaml"))]
PIECES = (b"GGUF in", b" three", b" parts")
SHA256 = hashlib.sha256(b"".join(PIECES)).hexdigest()


def carried(folder: Path, pieces: tuple[bytes, ...]) -> list[str]:
    """Packages in ``folder`` that carry the pieces, which fail if they are imported; their places."""
    places = []
    for n, piece in enumerate(pieces):
        package = folder / f"carried_part{n}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
        (package / "data" / f"base.gguf.part{n}").write_bytes(piece)
        places.append(f"{package.name}/data/base.gguf.part{n}")
    return places


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseModelConfig:
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMOTION_LRM_BASE", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    parts = carried(tmp_path / "packages", PIECES)
    source = GGUFSource(package="carried", extra="more", file="base.gguf", parts=tuple(parts), sha256=SHA256)
    return BaseModelConfig(name="some", model_id="maker/some", architecture="llama", licence="MIT", gguf=source)


def test_parts_are_joined_in_their_order_and_once(base: BaseModelConfig) -> None:
    path = find_base_gguf(base)
    assert path == cache_folder() / "bases" / f"{SHA256[:12]}-base.gguf"
    assert path.read_bytes() == b"".join(PIECES)
    written = path.stat().st_mtime_ns
    assert find_base_gguf(base) == path
    assert path.stat().st_mtime_ns == written


def test_a_file_of_another_length_is_joined_again(base: BaseModelConfig) -> None:
    find_base_gguf(base).write_bytes(b"GGUF in th")
    assert find_base_gguf(base).read_bytes() == b"".join(PIECES)


def test_a_missing_part_is_told_with_what_installs_it(base: BaseModelConfig, tmp_path: Path) -> None:
    next((tmp_path / "packages").rglob("*.part1")).unlink()
    with pytest.raises(ModelError, match="maker/some are not on this machine") as caught:
        find_base_gguf(base)
    assert caught.value.hint == 'Install them with: pip install carried  (or pip install ".[more]")'
    assert not (cache_folder() / "bases").exists()


def test_parts_of_another_release_are_refused_and_not_kept(base: BaseModelConfig, tmp_path: Path) -> None:
    next((tmp_path / "packages").rglob("*.part1")).write_bytes(b" other")
    with pytest.raises(ModelError, match="SHA-256 differs") as caught:
        find_base_gguf(base)
    assert caught.value.hint == "Install them again with: pip install --force-reinstall carried"
    assert not list((cache_folder() / "bases").glob("*base.gguf"))


def test_what_is_joined_is_found_where_nothing_can_be_written(
    base: BaseModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = find_base_gguf(base)
    monkeypatch.setattr("toolkit.base.locked", None)  # which would make a file
    assert find_base_gguf(base) == path


def test_a_package_of_somebodys_own_needs_no_extra(base: BaseModelConfig) -> None:
    source = GGUFSource(package="nosuch_package", file="base.gguf", sha256=SHA256)
    with pytest.raises(ModelError) as caught:
        find_base_gguf(base.model_copy(update={"gguf": source}))
    assert caught.value.hint == "Install them with: pip install nosuch-package"


def test_every_base_names_a_frame_that_there_is() -> None:
    assert {base.frame for base in BASES} <= {frame["name"] for frame in load_prompt().frames}


def test_a_base_of_the_hub_alone_asks_for_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOTION_LRM_BASE", raising=False)
    with pytest.raises(ModelError, match="comes with no package") as caught:
        find_base_gguf(load_base("llama-3.2-1b"))
    assert "EMOTION_LRM_BASE" in caught.value.hint


@pytest.mark.real
@pytest.mark.parametrize("base", [base for base in BASES if base.gguf], ids=lambda base: base.name)
def test_what_a_base_says_of_its_prompt_is_true_of_its_vocabulary(base: BaseModelConfig) -> None:
    native = NativeModel(find_base_gguf(base), vocab_only=True)
    try:
        frame = frame_for(native, Lens.AUTHOR)
        for lens in Lens:
            check_boundaries(native, load_taxonomy(lens.native).labels)
    finally:
        native.close()
    assert frame.name == base.frame
    head, _, tail = chat_template(base).partition("{{ messages[-1]['content'] | trim }}")
    assert head == "{{ '" + frame.head_text.replace("\n", "\\n") + "' }}"
    assert tail == "{{ '" + frame.tail_text.replace("\n", "\\n") + "' }}"
