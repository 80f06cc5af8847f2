"""The rival encoder: it learns soft targets, resumes, is saved, packed, read back, and judged by the same command."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from toolkit.assets import asset
from toolkit.cli import main
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ConfigError, ModelError, UsageError
from toolkit.training.commands import train
from toolkit.training.config import DataSettings, EncoderConfig, LensData
from toolkit.training.encoder import EncoderTrainer, encode_examples, load_base_encoder, prepare_encoder
from toolkit.training.encoder_model import EncoderModel, is_encoder, write_zip
from toolkit.training.loop import finish, run

from .conftest import sample_rows

LABELS = load_taxonomy("goemotions").labels
TEXTS = ["I won!", "Leave me alone, I have had more than enough of all of you and your noise", "", "ok"]


def config_for(base: Path, out: Path, **changes: object) -> EncoderConfig:
    told = {
        "kind": "encoder", "name": "tiny", "bases": [str(base)], "epochs": 3, "batch_size": 16, "max_length": 32,
        "learning_rate": 0.003, "warmup_steps": 2, "precision": "float32", "eval_every": 10, "checkpoint_every": 4,
        "out": str(out), **changes,
    }  # fmt: skip
    return EncoderConfig.model_validate(told)


def some_examples(count: int = 160) -> list[Example]:
    return [Example(row["text"], (row["emotion"],), Lens.AUTHOR, row["id"]) for row in sample_rows()[:count]]


def quiet(*_: object) -> None:
    return None


@pytest.fixture(scope="module")
def trained(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("encoder")
    examples = some_examples()
    config = config_for(tiny_encoder, out, epochs=24, eval_every=240)
    run(prepare_encoder(config, examples, examples[:40], "samples"), False, quiet)
    return out


def test_the_shipped_configuration_is_that_of_the_echo_room() -> None:
    shipped = load_config(EncoderConfig, asset("models", "configs", "encoder.yaml"))
    assert shipped.bases == ("BAAI/bge-small-en", "all-MiniLM-L6-v2")
    assert (shipped.max_length, shipped.lens, shipped.data.soft_labels) == (128, Lens.AUTHOR, "equal")


def test_it_learns(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert np.mean([r["label_loss"] for r in log[-5:]]) < 0.7 * np.mean([r["label_loss"] for r in log[:5]])
    assert log[-1]["dev_accuracy"] > 0.2  # of 28 labels; these rows it has seen


def test_folder_and_zip_read_alike(trained: Path, tmp_path: Path) -> None:
    folder, packed = EncoderModel.load(trained / "encoder"), EncoderModel.load(trained / "encoder.zip")
    assert packed.name == "tiny-tiny-bert"
    assert packed.facts == folder.facts
    posterior, coverage = packed.posteriors(TEXTS, lens=Lens.AUTHOR)
    assert np.array_equal(posterior, folder.posteriors(TEXTS, lens=Lens.AUTHOR)[0])
    assert posterior.shape == (4, 28)
    assert posterior.sum(1) == pytest.approx(np.ones(4), abs=1e-6)
    assert list(coverage) == [1, 1, 1, 1]
    again = write_zip(trained / "encoder", tmp_path / "again.zip")
    assert again.read_bytes() == (trained / "encoder.zip").read_bytes()
    assert str(trained) not in (trained / "encoder" / "encoder.json").read_text()


def test_padding_and_order_change_nothing(trained: Path) -> None:
    model = EncoderModel.load(trained / "encoder")
    together, _ = model.posteriors(TEXTS)
    alone = np.concatenate([model.posteriors([text])[0] for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[0] != pytest.approx(together[1], abs=1e-3)


def test_a_resumed_run_ends_like_one_that_was_never_stopped(tiny_encoder: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop_after_five(done: int, *_: object) -> None:
        if done == 5:  # one step past the checkpoint, which has to be done again
            raise StoppedError

    def fresh(name: str) -> EncoderTrainer:
        return prepare_encoder(config_for(tiny_encoder, tmp_path / name, max_steps=8), some_examples(64))

    whole = fresh("whole")
    run(whole, False, quiet)
    with pytest.raises(StoppedError):
        run(fresh("broken"), False, stop_after_five)
    resumed = fresh("broken")
    finish(resumed, quiet)
    for a, b in zip(whole.optimizer.masters, resumed.optimizer.masters, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert not (tmp_path / "broken" / "checkpoint.pt").exists()


def test_the_loss_is_the_cross_entropy_with_soft_targets_and_weights(tiny_encoder: Path, tmp_path: Path) -> None:
    examples = [
        Example("So happy, and so thankful", ("gratitude", "joy"), weight=2.0),
        Example("Go away", ("anger",), soft={"anger": 0.75, "annoyance": 0.25}),
    ]
    trainer = prepare_encoder(config_for(tiny_encoder, tmp_path), examples)
    trainer.model.network.eval()
    posterior, _ = trainer.model.posteriors([example.text for example in examples])
    log = np.log(posterior)
    joy, gratitude, anger, annoyance = (LABELS.index(x) for x in ("joy", "gratitude", "anger", "annoyance"))
    by_hand = -2 * (log[0, joy] + log[0, gratitude]) / 2 - 0.75 * log[1, anger] - 0.25 * log[1, annoyance]
    with torch.no_grad():
        assert float(trainer.loss(trainer.train)) == pytest.approx(by_hand, rel=1e-4)


def test_a_long_text_is_cut(tiny_encoder: Path, tmp_path: Path) -> None:
    trainer = prepare_encoder(config_for(tiny_encoder, tmp_path, max_length=8), [Example("a b c " * 50, ("joy",))])
    (row,) = encode_examples(trainer.model, [Example("a b c " * 50, ("joy",))])
    assert len(row.tokens) == 8


def test_the_first_base_that_is_there_is_taken(tiny_encoder: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    _, _, base = load_base_encoder([str(tmp_path / "nowhere"), str(tiny_encoder)], LABELS, heard.append)
    assert base == str(tiny_encoder)
    assert "nowhere is not on this machine" in heard[0]
    with pytest.raises(ModelError, match="None of the encoders"):
        load_base_encoder([str(tmp_path / "nowhere")], LABELS, heard.append)


def test_wrong_uses_are_refused(trained: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not learned the lens reader"):
        EncoderModel.load(trained / "encoder").posteriors(["x"], lens=Lens.READER)
    with pytest.raises(UsageError, match="nothing to learn"):
        prepare_encoder(config_for(tiny_encoder, tmp_path), [])
    with pytest.raises(ConfigError, match="one lens"):
        _ = config_for(tiny_encoder, tmp_path, data=DataSettings(reader=LensData())).lens


def test_only_an_encoder_is_taken_for_one(trained: Path, tmp_path: Path) -> None:
    assert is_encoder(str(trained / "encoder"))
    assert is_encoder(str(trained / "encoder.zip"))
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    for other in (None, "emotion-smollm2-135m", str(tmp_path), str(tmp_path / "x.gguf"), str(tmp_path / "none.zip")):
        assert not is_encoder(other)


def test_a_zip_of_somebody_else_does_no_harm(trained: Path, tmp_path: Path) -> None:
    evil = tmp_path / "deep" / "evil.zip"
    evil.parent.mkdir()
    with zipfile.ZipFile(trained / "encoder.zip") as sound, zipfile.ZipFile(evil, "w") as packed:
        for name in sound.namelist():
            packed.writestr(name, sound.read(name))
        packed.writestr("../escaped.txt", "x")
        packed.writestr("pytorch_model.bin", "x")
    assert EncoderModel.load(evil).posteriors(["x"])[0].shape == (1, 28)
    assert not (tmp_path / "escaped.txt").exists()
    raw = (trained / "encoder.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    with zipfile.ZipFile(cut, "w") as packed:
        packed.writestr("encoder.json", "{}")
    with pytest.raises(ModelError, match=r"no sound encoder\.json"):
        EncoderModel.load(cut)
    (tmp_path / "torn.zip").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        EncoderModel.load(tmp_path / "torn.zip")


def test_the_commands_train_it_and_judge_it(
    tiny_encoder: Path, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "encoder.yaml"
    told = config_for(tiny_encoder, tmp_path / "run", data={"dev_limit": 20}, max_steps=4)
    file.write_text(yaml.safe_dump(told.model_dump(mode="json")))
    result = CliRunner().invoke(train, [str(file), "--source", str(corpora)])
    assert result.exit_code == 0, result.output
    assert "240 examples; 4 steps; time about" in result.output
    packed = str(tmp_path / "run" / "encoder.zip")
    asked = ["evaluate", "ekman", "--source", str(corpora), "--model", packed, "--compare", packed, "--json", "-q"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["mode"], found["n"], found["valid_rate"]) == ("tiny-tiny-bert", "fast", 60, None)
    assert list(found["per_label"]) == list(load_taxonomy("ekman").labels)
    assert found["compared"][0]["accuracy"] == found["accuracy"]


def test_what_was_fitted_on_dev_can_lie_beside_it(
    trained: Path, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    EncoderModel.load(trained / "encoder").save(folder)
    asked = ["evaluate", "goemotions", "--source", str(corpora), "--model", str(folder), "-q", "--json"]
    assert main([*asked, "--fit-calibration", str(folder / "calibration.json")]) == 0
    fitted = json.loads((folder / "calibration.json").read_text())["lenses"]["author"]
    packed = write_zip(folder, tmp_path / "copy.zip")
    assert json.loads(EncoderModel.load(packed).calibration or "{}")["lenses"]["author"] == fitted
    capsys.readouterr()


def judged_labels(texts: Sequence[str], model: EncoderModel) -> list[str]:
    return [LABELS[place] for place in model.posteriors(texts)[0].argmax(1)]


def test_it_names_the_labels_in_their_order(trained: Path) -> None:
    """What transformers' own id2label says of the saved head is what the posterior's columns mean."""
    model = EncoderModel.load(trained / "encoder")
    assert [model.network.config.id2label[i] for i in range(28)] == list(LABELS)
    with torch.no_grad():
        told = model.network(**model.tokenizer(TEXTS[0], return_tensors="pt")).logits.argmax().item()
    assert model.network.config.id2label[told] == judged_labels(TEXTS[:1], model)[0]
