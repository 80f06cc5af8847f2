"""Flag, then environment, then file, then default; and errors that say where the wrong value stands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from toolkit.errors import ConfigError
from toolkit.settings import Settings, config_file, model_options, resolve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("mode: fast\nthreads: 2\nmodel: from-file\n", encoding="utf-8")
    return path


def test_each_layer_wins_over_the_next(file: Path) -> None:
    environ = {"EMOTION_LRM_CONFIG": str(file), "EMOTION_LRM_THREADS": "3", "EMOTION_LRM_MODEL": "from-environment"}
    found = resolve({"model": "from-flag", "lens": None}, environ)
    assert found.model == "from-flag"  # over environment and file
    assert found.threads == 3  # over the file
    assert found.mode == "fast"  # over the default
    assert found.lens == "author"  # the default
    assert resolve({}, {}) == Settings()


def test_an_unknown_key_names_file_key_and_the_nearest(file: Path) -> None:
    file.write_text("thread: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'thread'") as failed:
        resolve({}, {"EMOTION_LRM_CONFIG": str(file)})
    assert str(file) in str(failed.value)
    assert "'threads'" in failed.value.hint
    assert failed.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "named"),
    [("mode: slow\n", "mode"), ("threads: 0\n", "threads"), ("- a\n", "mapping"), ("a: [", "YAML")],
)
def test_a_wrong_value_in_the_file_names_it(file: Path, content: str, named: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        resolve({}, {"EMOTION_LRM_CONFIG": str(file)})


def test_a_wrong_value_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="EMOTION_LRM_THREADS"):
        resolve({}, {"EMOTION_LRM_THREADS": "many"})


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        resolve({}, {"EMOTION_LRM_CONFIG": str(tmp_path / "none.yaml")})


def test_the_file_lies_in_the_user_s_configuration_folder() -> None:
    assert config_file({}).parts[-2:] == ("emotion-lrm", "config.yaml")
    assert config_file({"EMOTION_LRM_CONFIG": "x.yaml"}) == Path("x.yaml")


def test_every_command_with_a_model_gets_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Settings] = []

    @click.command()
    @model_options
    def probe(settings: Settings) -> None:
        found.append(settings)

    monkeypatch.setenv("EMOTION_LRM_MODE", "fast")
    args = ["--model", "m", "--lens", "reader", "--taxonomy", "shared10", "--threads", "4", "--gpu-layers", "-1"]
    assert CliRunner().invoke(probe, args).exit_code == 0
    assert found == [Settings(model="m", lens="reader", taxonomy="shared10", mode="fast", threads=4, gpu_layers=-1)]
