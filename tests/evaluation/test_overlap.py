"""Rows that a model has learned from do not judge it, unless it is allowed, and then the figures say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.assets import asset
from toolkit.cli import main
from toolkit.contract.example import Example
from toolkit.errors import DataError, ModelError, UsageError
from toolkit.evaluation.document import as_markdown
from toolkit.evaluation.evaluate import judge, read
from toolkit.evaluation.overlap import learned_by, overlap, require_apart
from toolkit.evaluation.protocols import load_rows
from toolkit.evaluation.report import _headline as headline
from toolkit.evaluation.report import to_json
from toolkit.training.config import DataSettings, TrainConfig
from toolkit.training.encoder_model import Facts, read_facts, write_zip
from toolkit.training.learned import MOST_TEXTS, Learned, digest, learned_from, read_learned

from .conftest import ROWS, StandIn

TRAIN = Learned(frozenset({"goemotions train"}))
DEV = Learned(frozenset({"goemotions dev"}))


def texts(*of: str) -> Learned:
    return Learned(texts=frozenset(map(digest, of)))


def told_in(**metadata: object) -> SimpleNamespace:
    """A loaded model whose GGUF says this of itself."""
    header = SimpleNamespace(metadata={f"emotion_lrm.{key}": value for key, value in metadata.items()})
    return SimpleNamespace(engine=SimpleNamespace(model=SimpleNamespace(header=header), adapter=None))


# What was learned from


def test_case_and_white_space_make_no_other_text() -> None:
    assert digest(" Thank  you!\n") == digest("thank you!") != digest("thank you")
    assert len(digest("a lone \ud800")) == 12


def test_a_run_tells_its_splits_and_the_texts_of_its_files(tmp_path: Path) -> None:
    sample = {"id": "s", "emotion": "joy"}
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(sample | {"text": f"text {i}"}) + "\n" for i in range(3)))
    (tmp_path / "own.jsonl").write_text(json.dumps({"text": "my own", "labels": ["joy"]}) + "\n")
    data = {"author": None, "samples": [{"file": tmp_path / "s.jsonl", "limit": 2}]}
    assert learned_from(DataSettings.model_validate(data)) == texts("text 0", "text 1")
    both = DataSettings.model_validate({"author": {"rows": tmp_path / "own.jsonl"}, "reader": {}, "split": "valid"})
    assert learned_from(both) == Learned(frozenset({"goemotions dev", "empathetic dev"}), texts("my own").texts)
    assert learned_from(DataSettings.model_validate({"author": {"chains": "x_cot_val.jsonl"}})) == TRAIN | DEV


def test_the_echo_rooms_examples_say_which_splits_they_are_from() -> None:
    ids = ("goemotions/test/ed1", "empathetic/dev/hit:1", "hit:0_conv:1/3", "s1")
    found = learned_from(DataSettings(), [Example("x", ("joy",), id=one) for one in ids])
    assert found.splits == {"goemotions train", "goemotions test", "empathetic dev"}
    rated = learned_from(DataSettings(), [Example("x", ("joy",), id="goemotions/ed1/rater")])
    assert rated.splits == {"goemotions train", "goemotions dev", "goemotions test"}


def test_an_adapter_tells_what_it_has_learned(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torch import ones

    from toolkit.training.checkpoint import save_adapter

    def save_pretrained(folder: str, **_: object) -> None:
        save_file({"a": ones(1)}, Path(folder, "adapter_model.safetensors"))

    model = SimpleNamespace(peft_config={"default": SimpleNamespace()}, save_pretrained=save_pretrained)
    learned = TRAIN | texts("one", "two")
    save_adapter(model, tmp_path, {"model_id": "m"}, TrainConfig(name="t"), {}, learned)
    assert read_learned(tmp_path) == learned
    parts = [{"weight": 0.5, "learned": one.to_dict()} for one in (DEV, texts("three"))]
    (tmp_path / "training.json").write_text(json.dumps({"average": [*parts, {"folder": "of somebody"}]}))
    assert read_learned(tmp_path) == DEV | texts("three")
    (tmp_path / "training.json").write_text('{"learned": ["x"]}')
    with pytest.raises(DataError, match="is damaged"):
        read_learned(tmp_path)
    assert read_learned(tmp_path / "nowhere") == Learned()


def test_of_very_many_texts_some_are_told() -> None:
    told = replace(TRAIN, texts=frozenset(f"{i:012x}" for i in range(MOST_TEXTS + 9))).to_dict()
    assert len(Learned.from_dict(told).texts) == MOST_TEXTS
    assert len(json.dumps(told)) < 1 << 20  # the longest string of a GGUF that we read


@pytest.mark.parametrize("adapter", ["author", "told", "told-gemma", "two-lens"])
def test_what_ships_has_learned_from_train_and_not_from_what_is_held_out(adapter: str) -> None:
    learned = learned_by(told_in(adapter=adapter))
    assert learned.splits == {"goemotions train"} | ({"empathetic train"} if adapter == "two-lens" else set())

    def met(name: str) -> int:
        return overlap(load_rows(str(asset("data", "samples", name))), learned)

    assert met("tiny_debug_1k.jsonl") == (0 if adapter == "told-gemma" else 1000)  # of an early stage
    assert met("situations_14k.jsonl") == (0 if adapter == "two-lens" else 14527)
    assert met("contrasts_13k.jsonl") == {"two-lens": 0, "told-gemma": 5000}.get(adapter, 12961)
    assert met("persons_4k.jsonl") == (0 if adapter == "two-lens" else 3518)
    assert [met(name) for name in ("bench_300.jsonl", "golden.jsonl", "situations_dev.jsonl")] == [0, 0, 0]


def test_a_model_says_itself_what_it_has_learned(tmp_path: Path) -> None:
    own = TRAIN | texts("mine")
    assert learned_by(told_in(learned=json.dumps(own.to_dict()))) == own
    base, lora = told_in(adapter="author"), told_in(learned=json.dumps(texts("mine").to_dict()))
    base.engine.adapter = lora.engine.model
    assert digest("mine") in learned_by(base).texts
    assert learned_by(told_in(adapter="echo-room")) == learned_by(told_in()) == learned_by(StandIn()) == Learned()
    before = {"name": "e", "lens": "author", "taxonomy": "goemotions", "base": "b", "max_length": 8}
    facts = Facts.model_validate(before | {"trained_on": "goemotions train"})
    folder = tmp_path / "encoder"
    folder.mkdir()
    for told, wanted in ((facts, TRAIN), (facts.model_copy(update={"learned": own.to_dict()}), own)):
        (folder / "encoder.json").write_text(told.model_dump_json())
        packed = write_zip(folder, tmp_path / "encoder.zip")
        assert learned_by(None, str(folder)) == learned_by(None, str(packed)) == wanted
    (folder / "encoder.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no sound encoder\.json"):
        read_facts(folder)


# Whether it meets it again


def test_a_split_counts_as_a_whole_and_a_file_text_by_text(corpora: Path, tmp_path: Path) -> None:
    rows = load_rows("ekman", "dev", source=corpora)
    assert [overlap(rows, one) for one in (DEV, TRAIN, texts(*rows.texts))] == [10, 0, 0]  # the last are repeats
    (tmp_path / "own.csv").write_text("text,emotion\nso happy,joy\nSo  sad,sadness\n")
    own = load_rows(str(tmp_path / "own.csv"))
    assert [overlap(own, one) for one in (texts("so sad", "else"), DEV)] == [1, 0]
    assert require_apart("m", own, DEV, False) == 0
    with pytest.raises(UsageError, match=r"m has learned from 1 of the 2 rows"):
        require_apart("m", own, texts("so sad"), False)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, corpora: Path) -> Callable[..., int]:
    """Runs `emotion-lrm evaluate` with a stand-in that has learned from dev, but for the model `clean.gguf`."""

    @contextmanager
    def opened(settings: Any) -> Iterator[StandIn]:
        model = StandIn()
        if settings.model != "clean.gguf":
            model.engine = told_in(learned=json.dumps((DEV | texts(ROWS[0][0])).to_dict())).engine
        yield model

    monkeypatch.setattr("toolkit.evaluation.commands.open_model", opened)
    return lambda *args: main(["evaluate", *args, "--source", str(corpora), "--mode", "fast"])


def test_it_is_refused(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("sentiment") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "stand-in has learned from 10 of the 10 rows" in told.err
    assert "--allow-overlap" in told.err
    assert command("sentiment", "--model", "clean.gguf", "--compare", "other.gguf") == 2
    assert command("sentiment", "--split", "test") == 0
    (tmp_path / "own.csv").write_text(f"text,emotion\n{ROWS[0][0]},joy\n{ROWS[2][0]},anger\n")
    assert command(str(tmp_path / "own.csv")) == 2
    assert "from 1 of the 2 rows" in capsys.readouterr().err


MARK = "has learned from 10 of these 10 texts, so its figures flatter it."


def test_allowed_it_is_marked(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("sentiment", "--allow-overlap", "--compare", "clean.gguf")
    assert command(*asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["overlap"], told["compared"][0]["overlap"]) == (10, 0)
    assert command(*asked) == 0
    assert capsys.readouterr().out.count(MARK) == 1


def test_a_report_marks_it_too(corpora: Path) -> None:
    model, rows = StandIn(), load_rows("sentiment", "dev", source=corpora)
    clean = judge(model, rows, read(model, rows), mode="fast")
    marked = replace(clean, evaluation=replace(clean.evaluation, overlap=10))
    told = as_markdown(headline({"a": clean, "b": marked}))
    assert told.count(MARK) == told.count(f"b {MARK}") == 1
    assert [one["overlap"] for one in to_json({"a": clean, "b": marked})["models"]] == [0, 10]


def test_baselines_are_not_judged_by_what_they_learn(
    command: Callable[..., int], corpora: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("None of the encoders is to be had.", "Install one.")

    monkeypatch.setattr("toolkit.evaluation.baselines.train_encoder", refuse)
    dev = corpora / "goemotions" / "dev.tsv"
    dev.with_name("train.tsv").write_bytes(dev.read_bytes())
    asked = ("goemotions", "--split", "train", "--baselines")
    assert command(*asked) == 2
    assert "Every baseline has learned from 10 of the 10 rows" in capsys.readouterr().err
    assert command(*asked, "--allow-overlap", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["overlap"], told["baselines"]["tfidf"]["overlap"], told["baselines"]["encoder"]) == (0, 10, None)
    assert command(*asked, "--allow-overlap") == 0
    assert "tfidf has learned from 10 of these 10 texts" in " ".join(capsys.readouterr().out.split())
