"""The tutorial on training, followed to its end with a tiny base in the place of the real one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from toolkit.assets import asset
from toolkit.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial" / "train-your-own.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's root as a reader has it, with a tiny base, and no corpus."""
    monkeypatch.delenv("EMOTION_LRM_CORPORA")
    monkeypatch.chdir(workplace)
    (workplace / "data").symlink_to(asset("data"))
    return workplace


def test_own_texts_become_an_adapter_and_a_model_that_reads(
    checkout: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--set", f"base={checkout / 'base.yaml'}", "--set", "max_steps=2", "--set", "precision=float32"]
    assert main(["train", str(asset("models", "configs", "tutorial.yaml")), *tiny]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["adapter"], told["steps"]) == ("models/runs/tutorial/adapter", 2)
    assert "dev_accuracy" not in told
    export = ["convert", "export", "--adapter", told["adapter"], "--out", "my-model", "--base", str(tiny_base)]
    assert main(export) == 0
    (model,) = (checkout / "my-model").glob("*.gguf")
    assert f"my-model/{model.name}" in PAGE
    capsys.readouterr()
    assert main(["--model", str(model), "--mode", "fast", "--json", "What a day!"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["scores"].values()) == pytest.approx(1)


def test_the_form_of_own_texts_is_the_one_on_the_page(checkout: Path) -> None:
    (texts,) = re.findall(r"cat > mine.jsonl <<'END'\n(.*?)END\n", PAGE, re.DOTALL)
    (checkout / "mine.jsonl").write_text(texts, encoding="utf-8")
    (section,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("data:")]
    run = {"name": "mine", "base": "base.yaml", "max_steps": 1, "precision": "float32", **yaml.safe_load(section)}
    (checkout / "mine.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    assert main(["train", "mine.yaml"]) == 0
    assert (checkout / "models" / "runs" / "mine" / "adapter" / "adapter_model.safetensors").is_file()
