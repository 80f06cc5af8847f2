"""Simpler models beside ours: what they learn, and what the command says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from toolkit.cli import main
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError, UsageError
from toolkit.evaluation import baselines
from toolkit.evaluation.baselines import calibrated, judge_baselines, judge_rival
from toolkit.evaluation.protocols import load_rows
from toolkit.evaluation.rivals import Rival, fit_majority, fit_words

from .conftest import LABELS, StandIn

EXAMPLES = [
    Example("so happy today", ("joy",)),
    Example("happy and thankful", ("gratitude", "joy")),
    Example("thankful for it", ("gratitude",)),
    Example("go away at once", ("anger",)),
    Example("away with you", ("anger",)),
    Example("happy days", ("joy",)),
]


def quiet(*_: object) -> None:
    return None


@pytest.fixture
def with_train(corpora: Path) -> Path:
    """The small corpus with a train split of its own."""
    rows = [f"{e.text}\t{','.join(str(LABELS.index(x)) for x in e.labels)}\tt{i}" for i, e in enumerate(EXAMPLES * 3)]
    (corpora / "goemotions" / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return corpora


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder takes long and has tests of its own; here none is to be had."""

    def refuse(*_: object) -> Rival:
        raise ModelError("None of the encoders is to be had.", "Install one.")

    monkeypatch.setattr(baselines, "train_encoder", refuse)


def test_the_majority_is_the_shares_of_the_labels() -> None:
    rival = fit_majority(EXAMPLES, Lens.AUTHOR, "goemotions")
    posterior, coverage = rival.posteriors(["x", "happy"], lens=Lens.AUTHOR)
    assert posterior[0] == pytest.approx(posterior[1])
    shares = {label: posterior[0, LABELS.index(label)] for label in ("joy", "gratitude", "anger")}
    assert shares == pytest.approx({"joy": 2.5 / 6, "gratitude": 1.5 / 6, "anger": 2 / 6})
    assert list(coverage) == [1, 1]
    with pytest.raises(UsageError, match="lens reader"):
        rival.posteriors(["x"], lens=Lens.READER)


def test_words_learn_words() -> None:
    rival = fit_words(EXAMPLES, Lens.AUTHOR, "goemotions")
    posterior, _ = rival.posteriors(["happy", "away", "thankful"], lens=Lens.AUTHOR)
    assert [LABELS[place] for place in posterior.argmax(1)] == ["joy", "anger", "gratitude"]
    assert posterior.sum(1) == pytest.approx(np.ones(3))
    assert posterior[:, LABELS.index("fear")] == pytest.approx(np.zeros(3))  # it has seen none


def test_the_majority_names_one_label_and_not_all(corpora: Path) -> None:
    rows = load_rows("goemotions", "dev", source=corpora)
    found = judge_rival(fit_majority(EXAMPLES, Lens.AUTHOR, "goemotions"), rows, quiet)
    assert found.predicted.sum() == len(rows.texts)
    assert found.evaluation.accuracy == pytest.approx(0.1)  # one of ten is joyful


def test_on_test_a_rival_has_thresholds_from_dev_as_ours_has(corpora: Path) -> None:
    rows = load_rows("goemotions", "test", source=corpora)
    rival = fit_words(EXAMPLES, Lens.AUTHOR, "goemotions")
    fitted = calibrated(rival, rows, corpora).calibration.of(Lens.AUTHOR)
    assert fitted.fitted_on == "goemotions dev"
    assert set(fitted.thresholds["goemotions"]) == set(LABELS)
    dev = load_rows("goemotions", "dev", source=corpora)
    assert calibrated(rival, dev, corpora) is rival
    (corpora / "goemotions" / "dev.tsv").unlink()
    assert calibrated(rival, rows, corpora) is rival


@pytest.mark.usefixtures("no_encoder")
def test_what_cannot_be_trained_is_null_with_one_line(with_train: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    rows = load_rows("ekman", "dev", source=with_train)
    found = judge_baselines(rows, with_train, tmp_path, heard.append, quiet)
    assert list(found) == ["majority", "tfidf", "encoder"]
    assert found["encoder"] is None
    assert heard == ["No baseline encoder: None of the encoders is to be had. Install one."]
    assert found["tfidf"] is not None
    assert found["tfidf"].evaluation.accuracy >= 0.2  # "happy" twice, once with another gold label


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, corpora: Path) -> list[str]:
    """`emotion-lrm evaluate goemotions --baselines` with the stand-in on the small corpus."""

    @contextmanager
    def opened(_: object) -> Iterator[StandIn]:
        yield StandIn()

    monkeypatch.setattr("toolkit.evaluation.commands.open_model", opened)
    return ["evaluate", "goemotions", "--baselines", "--mode", "fast", "--source", str(corpora)]


@pytest.mark.usefixtures("no_encoder")
def test_without_a_train_split_every_baseline_is_null(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["baselines"] == {"majority": None, "tfidf": None, "encoder": None}
    assert [line for line in told.err.splitlines() if "No baselines: GoEmotions has no train split" in line]


@pytest.mark.usefixtures("no_encoder", "with_train")
def test_the_command_shows_them_beside_the_model(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["baselines"]["encoder"] is None
    keys = {"model", "n", "accuracy", "macro_f1", "weighted_f1", "loss", "texts_per_second"}
    for name in ("majority", "tfidf"):
        assert keys <= set(found["baselines"][name])
        assert found["baselines"][name]["n"] == found["n"] == 10

    assert main([*command, "--report", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    lines = {line.strip().split("  ")[0]: line for line in table.splitlines()}
    assert "0.700" in lines["stand-in"]
    assert "0.100" in lines["majority"]
    assert "–" in lines["encoder"]
    assert all(len(line) <= 80 for line in table.splitlines())
    written = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Beside simpler models" in written
    assert "| majority | 0.100 (0.000 to 0.300) |" in written
    told = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert told["models"][0]["baselines"]["tfidf"]["n"] == 10
