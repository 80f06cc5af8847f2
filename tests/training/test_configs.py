"""The training and base configurations that ship can be read, fit together and name their terms."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from toolkit.assets import asset
from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.training.config import TrainConfig

CONFIGS = asset("models", "configs")
OTHERS = {"shipped.yaml", "ablations.yaml", "encoder.yaml"}  # the last two have tests of their own
RUNS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "base" and path.name not in OTHERS)
BASES = sorted((CONFIGS / "base").glob("*.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_training_configuration_names_a_base_and_samples_that_ship(path: Path) -> None:
    config = load_config(TrainConfig, path)
    assert load_base(config.base).name == config.base
    for samples in config.data.samples:
        assert asset(*samples.file.parts).is_file()


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_is_of_a_family_that_converts_and_says_its_licence(path: Path) -> None:
    base = load_base(path.stem)
    assert base.name == path.stem
    assert base.architecture in {"llama", "qwen2", "qwen3", "gemma3"}
    assert base.licence


@pytest.mark.parametrize(("adapter", "begins"), [("author", None), ("two-lens", Path("models/adapters/author"))])
def test_the_stages_of_an_adapter_follow_one_another(adapter: str, begins: Path | None) -> None:
    stages = [load_config(TrainConfig, path) for path in sorted((CONFIGS / adapter).glob("*.yaml"))]
    assert stages[0].init == begins
    assert stages[-1].name == adapter
    for before, after in itertools.pairwise(stages):
        assert after.init == before.run_dir / "adapter"
