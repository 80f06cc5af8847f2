"""The page on other base models, followed with a tiny base: its commands, in its order, give a calibrated model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from toolkit.assets import asset
from toolkit.cli import main
from toolkit.config import load_config
from toolkit.contract.lens import Lens
from toolkit.inference.calibration import Calibration, parse_calibration
from toolkit.inference.model import EmotionModel
from toolkit.training.config import TrainConfig

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "other-bases.md").read_text(encoding="utf-8")
BUILT = "author-q8_0.gguf"
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # within PEFT


@pytest.fixture
def here(workplace: Path, tiny_base: Path, tiny_folder: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter where the page's training would put it, in a folder with its base.gguf, BASE_FOLDER and DIR."""
    monkeypatch.chdir(workplace)
    for name, target in (("base.gguf", tiny_base), ("BASE_FOLDER", tiny_folder), ("DIR", corpora)):
        Path(name).symlink_to(target)
    run_dir = load_config(TrainConfig, asset("models", "configs", "other-bases", "qwen2.5-0.5b.yaml")).run_dir
    assert main(["train", "train.yaml", "--set", "max_steps=2", "--set", f"out={run_dir}"]) == 0
    return run_dir / "adapter"


def type_in(*words: str) -> None:
    """Run the one command of the page that begins with these words."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"    emotion-lrm {' '.join(words)} ")]
    assert main(shlex.split(line)[1:]) == 0


def calibration() -> Calibration:
    with EmotionModel.load(BUILT, threads=1) as model:
        return model.calibration


def test_a_model_takes_up_what_was_fitted_when_it_is_built_again(here: Path) -> None:
    type_in("convert", "build")
    assert calibration() == Calibration()
    type_in("evaluate", "goemotions")
    assert calibration() == Calibration()
    type_in("convert", "build")
    fitted = json.loads((here / "calibration.json").read_text(encoding="utf-8"))
    assert calibration() == parse_calibration(json.dumps(fitted))
    assert len(calibration().of(Lens.AUTHOR).thresholds["goemotions"]) == 28
    Path(BUILT).unlink()
    type_in("convert", "merge", "--torch")
    type_in("convert", "gguf")
    type_in("convert", "quantize")
    assert calibration() == parse_calibration(json.dumps(fitted))
