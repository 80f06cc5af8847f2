"""What an adapter's folder says of how it was made: lenses, corpora, licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.assets import asset
from toolkit.base import load_base
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference import transformers_backend
from toolkit.inference.origin import read_origin
from toolkit.inference.store import load_shipped

AUTHOR = {"config": {"data": {"author": {"rows": None}, "reader": None, "samples": []}}}
READER = {"config": {"data": {"author": None, "reader": {"rows": "mine.jsonl"}, "samples": []}}}
OWN_TEXTS = {"config": {"data": {"author": None, "reader": None, "samples": [{"lenses": ["reader", "author"]}]}}}
WENT_ON = {**AUTHOR, "learned": {"splits": ["empathetic train", "goemotions train"], "texts": ""}}
FREE, NOT = "Apache-2.0", "CC-BY-NC-4.0"


def folder(path: Path, training: Any = None, base: str = "smollm2-135m", calibration: Any = None) -> Path:
    """An adapter's folder without weights."""
    told = {"base.json": {"model_id": load_base(base).model_id}, "training.json": training}
    for name, content in (told | {"calibration.json": calibration}).items():
        if content is not None:
            (path / name).write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("training", "lenses", "datasets", "licence"),
    [
        (AUTHOR, ["author"], ["GoEmotions"], FREE),
        (READER, ["reader"], ["EmpatheticDialogues"], NOT),
        (OWN_TEXTS, ["author", "reader"], [], FREE),
        (WENT_ON, ["author", "reader"], ["GoEmotions", "EmpatheticDialogues"], NOT),
        (
            {"average": [{"weight": 0.5, **AUTHOR}, {"weight": 0.5, "average": [READER, OWN_TEXTS]}]},
            ["author", "reader"], ["GoEmotions", "EmpatheticDialogues"], NOT,
        ),
        ({"average": [AUTHOR, {"weight": 0.5, "folder": "of somebody"}]}, ["author"], ["GoEmotions"], ""),
        ({}, [], [], ""),
        (None, [], [], ""),
    ],
)  # fmt: skip
def test_the_training_tells(
    tmp_path: Path, training: Any, lenses: list[str], datasets: list[str], licence: str
) -> None:
    found = read_origin(folder(tmp_path, training))
    assert found.base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (list(map(str, found.lenses)), list(found.datasets), found.licence) == (lenses, datasets, licence)


def test_where_no_training_is_told_the_calibration_tells(tmp_path: Path) -> None:
    found = read_origin(folder(tmp_path, calibration={"lenses": {"reader": {}, "author": {}}}))
    assert (found.lenses, found.datasets, found.licence) == (tuple(Lens), ("GoEmotions", "EmpatheticDialogues"), NOT)
    found = read_origin(folder(tmp_path, calibration={"lenses": {"author": {}}}))
    assert (found.lenses, found.licence) == ((Lens.AUTHOR,), "")


def test_the_licence_of_the_base_holds(tmp_path: Path) -> None:
    assert read_origin(folder(tmp_path, AUTHOR, "gemma-3-270m")).licence == "Gemma Terms of Use"
    assert read_origin(folder(tmp_path, READER, "gemma-3-270m")).licence == "CC-BY-NC-4.0 and Gemma Terms of Use"
    (tmp_path / "base.json").unlink()
    assert (read_origin(tmp_path).base, read_origin(tmp_path).licence) == ("", NOT)
    assert read_origin(folder(tmp_path, AUTHOR)).licence == FREE


@pytest.mark.parametrize("training", ["[]", "{", '{"average": [1]}', '{"config": {"data": {"samples": [{}]}}}'])
def test_a_damaged_folder_is_refused(tmp_path: Path, training: str) -> None:
    (tmp_path / "training.json").write_text(training, encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        read_origin(tmp_path)


@pytest.mark.parametrize("name", load_shipped().models)
def test_the_adapters_that_ship_say_what_the_list_of_models_says(name: str) -> None:
    shipped = load_shipped().models[name]
    found = read_origin(asset("models", "adapters", shipped.adapter))
    assert list(found.lenses) == shipped.lenses
    assert (list(found.datasets), found.licence) == (shipped.datasets, shipped.licence)
    assert found.base == load_base(shipped.base).model_id


def test_the_backend_transformers_reads_a_folder_through_its_lenses(tmp_path: Path) -> None:
    for training, lenses in ((READER, (Lens.READER,)), (OWN_TEXTS, tuple(Lens)), ({}, (Lens.AUTHOR,))):
        assert transformers_backend._find(str(folder(tmp_path, training)))[2] == lenses
