"""The training and base configurations that ship can be read, fit together and name their terms."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.assets import asset
from toolkit.base import load_base
from toolkit.config import load_config
from toolkit.errors import ConfigError
from toolkit.training.checkpoint import public
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
        assert samples.votes is None or asset(*samples.votes.parts).is_file()


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_is_of_a_family_that_converts_and_says_its_licence(path: Path) -> None:
    base = load_base(path.stem)
    assert base.name == path.stem
    assert base.architecture in {"llama", "qwen2", "qwen3", "gemma3"}
    assert base.licence


def test_what_is_built_on_llama_begins_its_name_with_it_as_the_licence_wants() -> None:
    runs = [load_config(TrainConfig, path) for path in RUNS]
    named = [run.name for run in runs if load_base(run.base).licence.startswith("Llama")]
    assert named
    assert all(name.startswith("Llama") for name in named)


def told(adapter: str) -> Any:
    return json.loads((asset("models", "adapters", adapter) / "training.json").read_text(encoding="utf-8"))


def as_read(config: Any) -> Any:
    """A recorded configuration, with the defaults of the keys that came later."""
    return public(TrainConfig.model_validate(config))


def recorded(adapter: str) -> list[Any]:
    """The runs of which an adapter is the mean, each counted alike."""
    parts = told(adapter)["average"]
    assert len({part["weight"] for part in parts}) == 1
    return [as_read(part["config"]) for part in parts]


def shipped(*names: str) -> list[TrainConfig]:
    return [load_config(TrainConfig, CONFIGS / name) for name in names]


def test_the_author_adapter_is_the_mean_of_what_reads_comments_and_of_a_run_for_both() -> None:
    last, comments = told("author")["average"]
    assert (last["weight"], comments["weight"]) == (0.55, 0.45)
    (run,) = shipped("both.yaml")
    assert as_read(last["config"]) == public(run)
    assert run.init == Path("models/runs/author-and-told")
    (before,) = last["before"]
    same, feelings = before["average"]
    assert same["weight"] == pytest.approx(1.5 * feelings["weight"])
    assert same["average"] == comments["average"]
    assert feelings["average"] == told("told")["average"]
    runs = shipped("author/3-situations.yaml", "author/4-votes.yaml", "author/4-equal.yaml")
    assert [as_read(part["config"]) for part in comments["average"]] == [public(run) for run in runs]


CONTRASTED = [f"told-{name}.yaml" for name in ("contrasted-again", "contrasted", "and-comments", "distilled")]
QUOTED = ["told-steadied.yaml", "told-quoted.yaml"]


def test_the_told_adapter_is_the_mean_of_its_last_two_stages_and_of_what_they_went_on_from() -> None:
    last, quoted, contrasting = told("told")["average"]
    assert last["weight"] == quoted["weight"] == contrasting["weight"]
    assert [as_read(stage["config"]) for stage in (last, quoted)] == [public(run) for run in shipped(*QUOTED)]
    before = {"average": contrasting["average"]}
    assert (last["before"][0]["config"], last["before"][1:]) == (quoted["config"], [before])
    assert quoted["before"] == [before]
    last, third = contrasting["average"]
    assert last["weight"] == third["weight"]
    *stages, before = last["before"]
    assert [as_read(stage["config"]) for stage in (last, *stages)] == [public(run) for run in shipped(*CONTRASTED)]
    assert (third["config"], third["before"]) == (stages[1]["config"], [stages[2], before])
    again, comments = shipped("told-again.yaml", "told-again-comments.yaml")
    other = again.model_copy(update={"name": "told-again-49", "seed": 49})
    assert [as_read(part["config"]) for part in before["average"]] == [public(run) for run in (again, other, comments)]


def test_the_two_lens_adapter_is_the_mean_of_its_two_runs() -> None:
    runs = shipped("two-lens.yaml", "two-lens-again.yaml")
    assert recorded("two-lens") == [public(run) for run in runs]
    assert runs[1].init == runs[0].run_dir / "adapter"


def test_the_adapter_on_gemma_comes_of_its_two_stages() -> None:
    last, first = shipped("told-gemma-reasoned.yaml", "told-gemma.yaml")
    assert last.init == first.run_dir / "adapter"
    recorded = told("told-gemma")
    assert [as_read(stage["config"]) for stage in (recorded, *recorded["before"])] == [public(last), public(first)]


def test_the_stages_of_the_told_adapter_follow_one_another() -> None:
    again, comments = shipped("told-again.yaml", "told-again-comments.yaml")
    *later, distilled = shipped(*CONTRASTED)
    last, quoted = shipped(*QUOTED)
    assert last.init == quoted.run_dir / "adapter"
    assert quoted.init == Path("models/runs/told-contrasting")
    assert again.init == comments.init == Path("models/runs/told-half")
    assert distilled.init == Path("models/runs/told")
    for after, stage in itertools.pairwise([*later, distilled]):
        assert after.init == stage.run_dir / "adapter"


def test_the_stages_of_the_author_adapter_follow_one_another() -> None:
    *stages, votes, equal = shipped(
        *(f"author/{name}.yaml" for name in ("1-labels", "2-chains", "3-situations", "4-votes", "4-equal"))
    )
    assert stages[0].init is None
    for before, after in itertools.pairwise(stages):
        assert after.init == before.run_dir / "adapter"
    assert votes.init == equal.init == stages[-1].run_dir / "adapter"


def test_a_key_in_the_wrong_place_is_told_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="unknown key 'dev_limit'") as caught:
        load_config(TrainConfig, CONFIGS / "tutorial.yaml", ("dev_limit=3",))
    assert caught.value.hint == "Did you mean 'data.dev_limit'?"
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, CONFIGS / "two-lens.yaml", ("data.reader.chainz=x",))
    assert caught.value.hint == "Did you mean 'data.reader.chains'?"
