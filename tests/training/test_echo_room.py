"""The Echo Room's protocol: its rows, what it says is missing, and the whole of it with tiny models."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from toolkit.cli import main
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import DataError
from toolkit.evaluation import baselines, document, echo_room, plots
from toolkit.evaluation.echo_room import agreed_task, gather, per_rater_task, split_task

from .conftest import sample_rows

GOEMOTIONS = load_taxonomy("goemotions").labels
SHARED = load_taxonomy("shared10").labels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """GoEmotions' train and dev, EmpatheticDialogues' train; the other three splits are not there."""
    folder = tmp_path / "both"
    for name in ("goemotions", "empathetic"):
        (folder / name).mkdir(parents=True)
    ids = {label: GOEMOTIONS.index(label) for label in GOEMOTIONS}
    texts = [row["text"].replace("\t", " ") for row in sample_rows()]
    rows = [f"{text}\t{ids[SHARED[i % 10]]}\tc{i}" for i, text in enumerate(texts[:200])]
    rows += [f"two labels\t{ids['joy']},{ids['love']}\ttwo", f"no place\t{ids['grief']}\tgrief"]
    (folder / "goemotions" / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "goemotions" / "dev.tsv").write_text(f"from dev\t{ids['pride']}\td1\n", encoding="utf-8")
    situations = [f"s{i}\t{('afraid', 'joyful', 'ashamed')[i % 3]}\t{text}" for i, text in enumerate(texts[200:290])]
    head = "conv_id\temotion\tsituation"
    (folder / "empathetic" / "situations_train.tsv").write_text("\n".join([head, *situations]), encoding="utf-8")
    return folder


def ratings(folder: Path, count: int) -> None:
    """A per-rater release of so many ratings, two a text."""
    columns = ("text", "id", "rater_id", "example_very_unclear", *GOEMOTIONS)
    (folder / "goemotions" / "raw").mkdir()
    lines = [",".join(columns)]
    for i in range(count):
        marks = ["1" if label == SHARED[i // 2 % 10] else "0" for label in GOEMOTIONS]
        lines.append(",".join((f"rated {i // 2}", f"r{i // 2}", str(i % 2), "False", *marks)))
    (folder / "goemotions" / "raw" / "goemotions_1.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_texts_of_one_shared_label_count_and_missing_splits_are_named(source: Path) -> None:
    found, missing = gather(source)
    assert len(found) == 200 + 1 + 60  # neither two labels nor grief nor ashamed
    assert Counter(e.id.split("/")[0] for e in found) == {"goemotions": 201, "empathetic": 60}
    assert {e.labels[0] for e in found if e.id.startswith("empathetic")} == {"fear", "joy"}
    assert ["no test split" in missing[0], "situations of test" in missing[2]] == [True, True]
    assert "EmpatheticDialogues has no situations of valid" in missing[1]


def test_the_split_is_stratified_and_neutral_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo_room, "NEUTRAL_CAP", 50)
    examples = [Example(f"{label} {i}", (label,)) for label in SHARED for i in range(100)]
    task = split_task("x", examples, [])
    counts = Counter(e.labels[0] for e in task.held_out)
    assert counts == {label: 10 if label == "neutral" else 20 for label in SHARED}
    assert len(task.train) == 0.8 * 950
    assert not {e.text for e in task.train} & {e.text for e in task.held_out}
    assert task.repeated == 0
    assert [e.text for e in split_task("x", examples, []).held_out] == [e.text for e in task.held_out]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        split_task("x", [Example("a", ("joy",))], [])


def test_single_ratings_count_only_where_all_are_there(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no per-rater release"):
        per_rater_task(source)
    ratings(source, 200)
    with pytest.raises(DataError, match="200 of 211,225 ratings"):
        per_rater_task(source)
    monkeypatch.setattr(echo_room, "ALL_RATINGS", 200)
    task = per_rater_task(source)
    everything = [*task.train, *task.held_out]
    assert Counter(e.id.split("/")[0] for e in everything) == {"goemotions": 200, "empathetic": 60}
    assert task.repeated > 0.3  # the other rating of a text often lies on the other side
    assert ["situations of valid" in line or "situations of test" in line for line in task.missing] == [True, True]


@pytest.fixture
def tiny(workplace: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped configurations with a tiny base and a tiny encoder."""
    configs = workplace / "models" / "configs"
    configs.mkdir(parents=True)
    run = yaml.safe_load((workplace / "train.yaml").read_text())
    kept = {key: run[key] for key in ("base", "lora", "learning_rate", "warmup_steps", "precision")}
    (configs / "echo-room.yaml").write_text(yaml.safe_dump({**kept, "name": "echo-room", "checkpoint_every": 2}))
    encoder = {"kind": "encoder", "name": "encoder", "bases": [str(tiny_encoder)], "precision": "float32"}
    (configs / "encoder.yaml").write_text(yaml.safe_dump(encoder))
    for module in (echo_room, baselines):
        monkeypatch.setattr(module, "asset", lambda *parts: workplace.joinpath(*parts))
    monkeypatch.setenv("EMOTION_LRM_CACHE", str(workplace / "cache"))


@pytest.mark.usefixtures("tiny")
def test_the_command_trains_judges_and_says_what_it_lacks(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, report = ["evaluate", "echo-room", "--source", str(source), "--steps", "3"], tmp_path / "out"
    assert main([*asked, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["protocol"] == "echo-room"
    assert (found["n"], found["trained_on"], found["per_rater"]) == (53, 208, None)
    assert {"accuracy", "loss", "weighted_precision", "weighted_recall", "weighted_f1"} <= set(found)
    assert set(found["baselines"]) == {"majority", "tfidf", "encoder"}
    assert found["baselines"]["majority"]["accuracy"] == pytest.approx(Counter(
        e.labels[0] for e in agreed_task(source).held_out
    ).most_common(1)[0][1] / 53, abs=1e-6)  # fmt: skip
    assert found["by_corpus"]["goemotions"]["n"] + found["by_corpus"]["empathetic"]["n"] == 53
    assert (found["echo_room"]["accuracy"], found["echo_room"]["weighted_f1"]) == (0.6675, 0.6633)
    assert len(found["missing"]) == 4
    for line in found["missing"]:
        assert line in told.err
    assert "Training our model on 208 examples takes about" in told.err

    monkeypatch.setenv("EMOTION_LRM_MODEL", "some-other.gguf")  # a habit of the user's, which has no say here
    monkeypatch.setattr(plots, "_picture", lambda _: document.Picture(b"", b"", 1))  # drawing has tests of its own
    assert main([*asked, "--report", str(report)]) == 0  # nothing is trained again
    again = capsys.readouterr()
    assert "Training" not in again.err
    assert "The Echo Room, bge-small-en" in again.out
    assert "0.667" in again.out
    assert "accuracy on" in again.out
    assert all(len(line) <= 80 for line in again.out.splitlines())

    kept = json.loads((report / "report.json").read_text())["outcome"]
    assert [kept[key] for key in ("loss", "by_corpus")] == [found[key] for key in ("loss", "by_corpus")]
    corpus = found["by_corpus"]["goemotions"]
    written = (report / "report.md").read_text()
    assert "".join(f" {found[f'weighted_{key}']:.3f} |" for key in ("precision", "recall", "f1")) in written
    assert f"| goemotions | {corpus['n']} | {corpus['ours']:.3f} | " in written
    for told in (written, (report / "report.html").read_text()):
        assert "66.75 % accuracy and 66.33 % F1" in told
        assert "Its split is of rows" in told
        assert f"{100 * found['repeated']:.1f} % of the texts judged by" in told
        assert "EmpatheticDialogues has no situations of valid" in told


@pytest.mark.usefixtures("tiny")
def test_what_cannot_be_trained_is_told_and_single_ratings_have_a_run_of_their_own(
    source: Path, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No encoder is to be had, and all ratings are there."""
    nowhere = {"kind": "encoder", "name": "encoder", "bases": [str(workplace / "nowhere")]}
    (workplace / "models" / "configs" / "encoder.yaml").write_text(yaml.safe_dump(nowhere))
    ratings(source, 200)
    monkeypatch.setattr(echo_room, "ALL_RATINGS", 200)
    assert main(["evaluate", "echo-room", "--source", str(source), "--steps", "1", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    rated = found["per_rater"]
    assert (found["protocol"], rated["protocol"]) == ("echo-room", "echo-room, per rater")
    assert (found["n"], rated["n"]) == (53, 52)
    assert (found["repeated"], rated["repeated"] > 0.3) == (0, True)
    assert any("GoEmotions" in line for line in found["missing"])
    assert not any("GoEmotions" in line for line in rated["missing"])
    for outcome in (found, rated):
        assert outcome["baselines"]["encoder"] is None
        assert outcome["baselines"]["tfidf"]["accuracy"] > 0
        assert outcome["loss"] > 0
    assert told.err.count("No baseline encoder") == 2  # a line for each of the two runs


def test_options_without_a_meaning_are_refused(source: Path) -> None:
    for wrong in (("--model", "x.gguf"), ("--baselines",), ("--compare", "x.gguf")):
        assert main(["evaluate", "echo-room", "--source", str(source), *wrong]) == 2
    assert main(["evaluate", "goemotions", "--source", str(source), "--steps", "3"]) == 2
