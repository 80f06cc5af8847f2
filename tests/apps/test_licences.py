"""What may not be done with a model is said on every way to it, and lies beside what is handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.apps.export import adapter_metadata
from toolkit.apps.licences import licences, remark
from toolkit.assets import asset
from toolkit.base import load_base
from toolkit.cli import main
from toolkit.errors import ModelError
from toolkit.inference import supervisor
from toolkit.inference.store import load_shipped

STAND_IN = str(Path(__file__).parents[1] / "inference")
TWO_LENS = "emotion-smollm2-135m-two-lens"
REMARK = "its licence, CC-BY-NC-4.0, forbids commercial use."
NC = {"licence": "CC-BY-NC-4.0", "base": "example/base", "datasets": ["EmpatheticDialogues"]}


@pytest.fixture
def interrupted_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache folder, and builds that end after their first step."""

    def build(*_: Any, progress: Any, **__: Any) -> None:
        progress(0, 1, "merge")
        raise ModelError("The build was interrupted.")

    monkeypatch.setattr("convert.build.build_model", build)
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("interrupted_build")
@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["analyze", "--lens", "both", "a text"],
        ["analyze", "--model", TWO_LENS, "a text"],
        ["batch", "in.txt", "-o", "out.jsonl", "--engine", "ray", "--lens", "both"],
        ["bench", "--model", TWO_LENS],
        ["bench", "--model", TWO_LENS, "--tune"],
    ],
    ids=" ".join,
)
def test_a_build_says_that_the_model_is_not_for_commercial_use(
    command: list[str], quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("a text\n", encoding="utf-8")
    assert main([*command, *(["-q"] if quiet else [])]) == 1
    err = capsys.readouterr().err
    assert "The build was interrupted." in err
    assert err.count(REMARK) == 1
    assert ("Building the model" in err) is not quiet


@pytest.mark.usefixtures("interrupted_build")
def test_a_build_of_a_free_model_has_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-q", "a text"]) == 1
    assert "licence" not in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [False, True])
def test_worker_processes_say_it_too(
    quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.setattr(supervisor, "ENTRY", "stand_in:main")
    (tmp_path / "in.txt").write_text("a text\n", encoding="utf-8")
    asked = ["batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl"), "--lens", "both"]
    assert main([*asked, *(["-q"] if quiet else [])]) == 0
    assert capsys.readouterr().err.count(REMARK) == 1


# Beside what is handed on


def test_a_free_model_has_the_licence_of_the_project() -> None:
    texts = licences("mine", {"licence": "Apache-2.0"})
    assert texts.keys() == {"LICENSE", "THIRD_PARTY_NOTICES.md"}
    assert "Apache License" in texts["LICENSE"]
    assert remark({"licence": "Apache-2.0", "datasets": ["GoEmotions"]}) == ""


def test_a_non_commercial_model_names_licence_reason_and_what_it_covers() -> None:
    texts = licences("mine", NC)
    told = texts["LICENSE"]
    for words in (
        "mine.gguf",
        "CC-BY-NC-4.0",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        "EmpatheticDialogues",
    ):
        assert words in told
    assert "example/base" in told
    assert "Apache License" in texts["LICENSE-Apache-2.0"]
    assert REMARK in remark(NC)


@pytest.mark.parametrize(
    ("told", "words"),
    [({}, "says nothing of its licence"), ({"licence": "Gemma Terms of Use"}, "is under Gemma Terms of Use")],
)
def test_a_model_of_another_licence_does_not_get_ours(told: dict[str, str], words: str) -> None:
    texts = licences("mine", told)
    assert words in texts["LICENSE"]
    assert "NC" not in texts["LICENSE"]
    assert "Apache License" in texts["LICENSE-Apache-2.0"]


def test_what_is_made_from_gemma_has_its_terms_and_notice_beside_it() -> None:
    told = {"licence": load_base("gemma-3-270m").licence, "datasets": ["GoEmotions"]}
    texts = licences("mine", told)
    assert (
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
        in (texts["NOTICE"])
    )
    assert "Section 3: DISTRIBUTION AND RESTRICTIONS" in texts["GEMMA_TERMS.md"]
    assert "Gemma Terms of Use" in remark(told)
    assert "NOTICE" not in licences("mine", NC)


@pytest.mark.parametrize("name", load_shipped().models)
def test_building_a_shipped_adapter_oneself_tells_the_same_of_it(name: str) -> None:
    shipped = load_shipped().models[name]
    told = adapter_metadata(asset("models", "adapters", shipped.adapter))
    assert (told["licence"], told["datasets"]) == (shipped.licence, shipped.datasets)
    assert told["lenses"] == [str(lens) for lens in shipped.lenses]
    assert told["base"] == load_base(shipped.base).model_id


def test_an_adapter_that_says_nothing_has_no_licence(tmp_path: Path) -> None:
    told = adapter_metadata(tmp_path)
    assert told["lenses"] == ["author"]
    assert not told.keys() & {"licence", "datasets", "base"}
