"""Which rows a run learns from: both lenses, chains, samples, and the targets of rows with several labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ConfigError, DataError
from toolkit.training.config import Distillation, TrainConfig
from toolkit.training.data import load_dev, load_training
from toolkit.training.distillation import read_posteriors

CHAIN = {"id": "c2", "text": "I won the race", "lens": "author", "labels": ["joy"], "reasoning": "They “won”: joy."}
READER_CHAIN = {
    "id": "s1", "text": "My dog died", "lens": "reader", "labels": ["sad"], "reasoning": "A dog that “died” is sad."
}  # fmt: skip
SAMPLE = {
    "id": "x1", "text": "At last!", "emotion": "relief", "reasoning": "It is “At last” over: relief.",
    "reader_emotion": "content", "reader_reasoning": "What is “At last” there leaves them content.",
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three comments, two with two labels; two situations with three turns each; votes for one comment."""
    comments, dialogues = tmp_path / "goemotions", tmp_path / "empathetic"
    comments.mkdir()
    dialogues.mkdir()
    rows = "You fool\t2,3\tc1\nI won the race\t17\tc2\nThanks, love it\t15,18\tc3\n"
    (comments / "train.tsv").write_text(rows, encoding="utf-8")
    (comments / "dev.tsv").write_text("Hm\t27\td1\nOh\t26\td2\n", encoding="utf-8")
    votes = "id\tsplit\tofficial_labels\tn_sampled_ratings\tsampled_votes\ttext\nc1\ttrain\t2,3\t3\t2:3\tYou fool\n"
    (comments / "votes.tsv").write_text(votes, encoding="utf-8")
    situations = "conv_id\temotion\tsituation\ns1\tsad\tMy dog died\ns2\tproud\tI passed\n"
    turns = "conv_id\tutterance_idx\temotion\trole\tutterance\n" + "".join(
        f"{c}\t{i}\t{e}\t{role}\tTurn {i} of {c}\n"
        for c, e in (("s1", "sad"), ("s2", "proud"))
        for i, role in ((1, "speaker"), (2, "listener"), (3, "speaker"))
    )
    for split in ("train", "valid"):
        (dialogues / f"situations_{split}.tsv").write_text(situations, encoding="utf-8")
        (dialogues / f"utterances_{split}.tsv").write_text(turns, encoding="utf-8")
    return tmp_path


def config_of(tmp_path: Path, data: dict[str, Any]) -> TrainConfig:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"name": "x", "data": data}))
    return load_config(TrainConfig, file)


def written(tmp_path: Path, *rows: dict[str, str | list[str]]) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def by_id(found: list[Example]) -> dict[str, Example]:
    return {example.id: example for example in found}


def test_the_author_alone_is_the_default(tmp_path: Path, source: Path) -> None:
    config = config_of(tmp_path, {})
    assert sorted(e.id for e in load_training(config, source)) == ["c1", "c2", "c3"]
    assert [e.id for e in load_dev(config, source)] == ["d1", "d2"]


def test_the_reader_learns_situations_and_the_speakers_turns(tmp_path: Path, source: Path) -> None:
    config = config_of(tmp_path, {"author": None, "reader": {"turns": 3}})
    found = load_training(config, source)
    assert {e.lens for e in found} == {Lens.READER}
    assert {e.id for e in found} >= {"s1", "s2"}
    turns = [e for e in found if "/" in e.id]
    assert len(turns) == 3
    assert not any("Turn 2" in e.text for e in turns)
    assert load_training(config, source) == found


def test_both_lenses_take_their_own_chains_of_one_file(tmp_path: Path, source: Path) -> None:
    chains = written(tmp_path, CHAIN, READER_CHAIN)
    config = config_of(tmp_path, {"author": {"chains": chains}, "reader": {"chains": chains, "labels_per_chain": 1}})
    found = load_training(config, source)
    assert {e.id: e.reasoning for e in found if e.reasoning} == {
        "c2": CHAIN["reasoning"], "s1": READER_CHAIN["reasoning"]
    }  # fmt: skip
    assert sorted(e.id for e in found) == ["c1", "c2", "c3", "s1", "s2"]
    assert {e.lens for e in load_dev(config, source)} == set(Lens)


def test_labels_per_chain_bounds_the_rows_without_one(tmp_path: Path, source: Path) -> None:
    chains = written(tmp_path, CHAIN)
    found = load_training(config_of(tmp_path, {"author": {"chains": chains, "labels_per_chain": 1}}), source)
    assert len(found) == 2
    assert "c2" in by_id(found)


def test_rows_of_a_file_stand_in_for_the_corpus(tmp_path: Path, source: Path) -> None:
    rows = written(tmp_path, {"id": "k", "text": "Kept", "labels": ["joy"], "soft": {"joy": 0.7, "love": 0.3}})
    (found,) = load_training(config_of(tmp_path, {"author": {"rows": rows}}), source)
    assert (found.id, found.target()) == ("k", {"joy": 0.7, "love": 0.3})


def test_samples_enter_through_each_of_their_lenses(tmp_path: Path, source: Path) -> None:
    samples = {"file": written(tmp_path, SAMPLE, SAMPLE), "lenses": ["author", "reader"], "limit": 1, "repeats": 2}
    found = load_training(config_of(tmp_path, {"samples": [samples]}), source)[3:]
    assert [(str(e.lens), e.labels) for e in found] == [("author", ("relief",)), ("reader", ("content",))] * 2
    assert found[1].reasoning == SAMPLE["reader_reasoning"]


def test_samples_share_their_target_with_the_votes_on_them(tmp_path: Path, source: Path) -> None:
    table = tmp_path / "votes.tsv"
    table.write_text("id\tsampled_votes\nx1\t23:7,17:3\n", encoding="utf-8")
    file = written(tmp_path, SAMPLE, SAMPLE | {"id": "x2"})
    samples = {"file": file, "lenses": ["author", "reader"], "votes": str(table)}
    data: dict[str, Any] = {"author": None, "samples": [samples]}
    found = load_training(config_of(tmp_path, data), source)
    assert [(e.id, e.labels, e.target()) for e in found if e.lens is Lens.AUTHOR] == [
        ("x1", ("relief",), pytest.approx({"relief": 9 / 12, "joy": 3 / 12})),  # ten votes, and two for the label
        ("x2", ("relief",), {"relief": 1.0}),
    ]
    assert all(e.target() == {"content": 1.0} for e in found if e.lens is Lens.READER)
    table.write_text("id\tsampled_votes\nx3\t23:10\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no votes on the texts of"):
        load_training(config_of(tmp_path, data), source)
    with pytest.raises(ConfigError, match="without the author's lens"):
        load_training(config_of(tmp_path, data | {"samples": [samples | {"lenses": ["reader"]}]}), source)
    with pytest.raises(DataError, match="gone"):
        load_training(config_of(tmp_path, data | {"samples": [samples | {"votes": str(tmp_path / "gone")}]}), source)


def test_the_target_of_several_labels(tmp_path: Path, source: Path) -> None:
    def target(soft: str, name: str) -> dict[str, float]:
        return by_id(load_training(config_of(tmp_path, {"soft_labels": soft}), source))[name].target()

    assert target("equal", "c1") == {"anger": 0.5, "annoyance": 0.5}
    assert target("first", "c1") == {"anger": 1.0}
    assert target("votes", "c1") == pytest.approx({"anger": 4 / 5, "annoyance": 1 / 5})  # three votes, prior of two
    assert target("votes", "c3") == {"gratitude": 0.5, "love": 0.5}


def test_texts_with_reasoning_are_learned_once_more_without_some_words(tmp_path: Path, source: Path) -> None:
    text = {"text": "At last it is over and done with!"}
    file = written(tmp_path, SAMPLE | text, {k: v for k, v in SAMPLE.items() if "reasoning" not in k} | {"id": "x2"})
    data = {"author": None, "samples": [{"file": file, "lenses": ["author", "reader"], "erased": True}]}
    found = load_training(config_of(tmp_path, data), source)
    author, reader = (sorted(e.id for e in found if e.lens is lens) for lens in Lens)
    assert author == reader == ["x1", "x1", "x2"]
    assert sum(e.text != text["text"] and e.id == "x1" for e in found) == 2


def test_labels_alone_are_learned_without_the_reasoning_that_tells_which_words_to_leave_out(
    tmp_path: Path, source: Path
) -> None:
    file = written(tmp_path, SAMPLE | {"text": "At last it is over and done with!"})
    data = {"author": None, "samples": [{"file": file, "labels_only": True, "erased": True}]}
    found = load_training(config_of(tmp_path, data), source)
    assert [e.reasoning for e in found] == [None, None]
    assert len({e.text for e in found}) == 2


def test_a_mistyped_key_within_a_lens_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'data\.author\.chain'") as error:
        config_of(tmp_path, {"author": {"chain": "x"}})
    assert "'data.author.chains'" in str(error.value.hint)


def reading(name: str, **scores: float) -> dict[str, Any]:
    """A row as `emotion-lrm batch` writes it, with scores that are not yet divided by their sum."""
    every = dict.fromkeys(load_taxonomy("goemotions").labels, 0.0) | scores
    return {"id": name, "row": 0, "status": "ok", "text": "", "scores": every}


def readings(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_reading_takes_its_share_of_the_target_and_a_row_without_keeps_its_own(source: Path, tmp_path: Path) -> None:
    path = readings(tmp_path, reading("c1", anger=2, disgust=2), {"id": "c2", "status": "error", "scores": None})
    author = {"distil": {"readings": str(path), "share": 0.6}}
    rows = {e.id: e for e in load_training(config_of(tmp_path, {"author": author}), source)}
    target = {label: share for label, share in rows["c1"].target().items() if share}
    assert target == pytest.approx({"anger": 0.3 + 0.2, "annoyance": 0.2, "disgust": 0.3})
    assert rows["c1"].labels == ("anger", "annoyance")
    assert rows["c2"].target() == {"joy": 1.0}


def test_a_chain_keeps_its_reasoning_and_takes_the_mixed_target(source: Path, tmp_path: Path) -> None:
    path = readings(tmp_path, reading("c2", pride=1))
    author = {"chains": written(tmp_path, CHAIN), "distil": {"readings": str(path), "share": 0.25}}
    rows = {e.id: e for e in load_training(config_of(tmp_path, {"author": author}), source)}
    assert rows["c2"].reasoning == CHAIN["reasoning"]
    assert rows["c2"].target()["pride"] == pytest.approx(0.25)
    assert rows["c2"].target()["joy"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    "bad",
    [
        "no object",
        {"id": "c1"},
        {"id": "c1", "status": "ok", "scores": {"joy": 1.0}},
        {"id": "c1", "status": "ok", "scores": None},
        reading("c1", joy=float("nan")),
        reading("c1", joy=-1.0, love=2.0),
        reading("c1"),
    ],
)
def test_a_damaged_reading_is_named_by_its_line(tmp_path: Path, bad: Any) -> None:
    path = readings(tmp_path, reading("c9", joy=1), bad)
    with pytest.raises(DataError, match=r"readings\.jsonl, line 2, is no reading") as caught:
        read_posteriors(path, Lens.AUTHOR)
    assert "emotion-lrm batch" in caught.value.hint


def test_a_file_that_is_not_json_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    path.write_bytes(b"id,emotion\n\xff,joy\n")
    with pytest.raises(DataError, match="line 1"):
        read_posteriors(path, Lens.AUTHOR)


def test_readings_of_other_rows_or_none_at_all_are_refused(source: Path, tmp_path: Path) -> None:
    for path, why in (
        (readings(tmp_path, reading("z", joy=1)), "no reading of a row"),
        (tmp_path / "no", "Cannot read"),
    ):
        with pytest.raises(DataError, match=why):
            load_training(config_of(tmp_path, {"author": {"distil": {"readings": str(path)}}}), source)


def test_the_share_is_above_0_and_at_most_1(tmp_path: Path) -> None:
    for share in (0, 1.2):
        with pytest.raises(ValueError, match="share"):
            Distillation(readings=tmp_path, share=share)
