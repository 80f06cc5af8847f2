"""Chains are chosen by label, judged, counted and written; the commands do it from raw files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.chain_texts import NON_COMMERCIAL
from toolkit.corpora.commands import data
from toolkit.corpora.cot import CotConfig, enrich, judge
from toolkit.corpora.gate import check
from toolkit.corpora.jsonl import read_examples
from toolkit.corpora.lexicon import Lexicon
from toolkit.corpora.prepared import CACHE
from toolkit.errors import EmotionLRMError

CONFIG = CotConfig(per_label=6, caps={"neutral": 4}, opening_share=1.0)
FEELINGS = {
    "gratitude": "grateful",
    "anger": "angry",
    "disapproval": "annoyed",
    "pride": "proud",
    "neutral": "prepared",
}
CLOSE = "I am grateful for the old bridge and the lift home today."


@pytest.fixture
def situations(tmp_path: Path, corpus: list[Example]) -> Path:
    """A corpora folder with EmpatheticDialogues alone; its last train row comes close to one of valid."""
    folder = tmp_path / "corpora" / "empathetic"
    folder.mkdir(parents=True)
    train = [f"{e.id}\t{FEELINGS[e.labels[0]]}\t{e.text}" for e in corpus]
    valid = ["v1\tgrateful\tThank you so much for the lift home.", f"v2\tgrateful\t{CLOSE}"]
    splits = {"train": [*train, f"close\tgrateful\t{CLOSE.upper()}!!"], "valid": valid}
    for split, rows in splits.items():
        with gzip.open(folder / f"situations_{split}.tsv.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(["conv_id\temotion\tsituation", *rows, ""]))
    return tmp_path / "corpora"


def chains(examples: list[Example], lexicon: Lexicon, config: CotConfig = CONFIG) -> list[Example]:
    return enrich(examples, judge(examples, lexicon, examples), lexicon, config)[0]


def test_labels_are_capped_and_every_chain_passes_the_gate(corpus: list[Example], lexicon: Lexicon) -> None:
    judged = judge(corpus, lexicon, corpus)
    written, report = enrich(corpus, judged, lexicon, CONFIG)
    assert report.per_label == {"anger": 6, "disapproval": 6, "gratitude": 6, "pride": 6, "neutral": 4}
    assert all(check(e, e.reasoning or "") is None for e in written)
    assert len({e.id for e in written}) == len(written) == report.written
    assert report.to_dict()["distinct_openings"] > 15


def test_the_argued_label_comes_first_and_the_other_gold_labels_follow(corpus: list[Example], lexicon: Lexicon) -> None:
    both = Example("So proud of our team, thank you so much.", ("gratitude", "pride"), id="both")
    more = [Example(e.text, e.labels, id=f"{e.id}+") for e in corpus if e.labels == ("gratitude",)]
    found = [e for e in chains([*more, both, *corpus], lexicon, CotConfig(opening_share=1.0)) if e.id == "both"]
    assert [e.labels for e in found] == [("pride", "gratitude")]  # pride is the rarer


def test_the_same_seed_gives_the_same_chains(corpus: list[Example], lexicon: Lexicon) -> None:
    assert chains(corpus, lexicon) == chains(corpus, lexicon)
    assert chains(corpus, lexicon) != chains(corpus, lexicon, CONFIG.model_copy(update={"seed": 1}))


def test_a_label_that_the_text_belies_is_refused_and_counted(corpus: list[Example], lexicon: Lexicon) -> None:
    lie = Example("Thank you so much for this song today.", ("neutral",), id="lie")
    written, report = enrich([lie], judge([lie], lexicon, corpus), lexicon, CotConfig(judge_top=1))
    assert not written
    assert sum(report.given_up.values()) == 1


def test_prepare_writes_rows_and_report(source: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["prepare", "--source", str(source), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "goemotions_clean_report.json").read_text(encoding="utf-8"))
    assert report["dropped"] == {"near duplicate of another split": 2, "nothing but masks": 1}
    rows = list(read_examples(tmp_path / "out" / "goemotions_clean.jsonl"))
    assert len(rows) == report["kept"] == report["read"] - 3


def test_cot_writes_both_splits_and_counts_refusals(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(data, ["cot", "--source", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    report = json.loads((out / "goemotions_cot_report.json").read_text(encoding="utf-8"))
    train = list(read_examples(out / "goemotions_cot_train.jsonl"))
    assert len(train) == report["train"]["written"] > 20
    assert all(e.reasoning and e.labels[0] in load_taxonomy("goemotions").labels for e in train)
    assert len(list(read_examples(out / "goemotions_cot_val.jsonl"))) == report["val"]["written"]
    assert set(report["val"]) >= {"refused_chains", "texts_given_up"}


def test_cot_through_the_readers_lens_writes_its_own_files(
    situations: Path, tmp_path: Path, corpus: list[Example]
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(data, ["cot", "--lens", "reader", "--source", str(situations), "--out", str(out)])
    assert result.exit_code == 0, result.output
    ends = ("train.jsonl", "val.jsonl", "refused.jsonl", "report.json")
    assert {path.name for path in out.iterdir()} == {f"empathetic_cot_{end}" for end in ends}
    report = json.loads((out / "empathetic_cot_report.json").read_text(encoding="utf-8"))
    assert report["notes"] == [NON_COMMERCIAL]
    assert NON_COMMERCIAL in result.stderr
    train = list(read_examples(out / "empathetic_cot_train.jsonl"))
    assert len(train) == report["train"]["written"] > 20
    assert {label for e in train for label in e.labels} <= set(load_taxonomy("empathetic").labels)
    assert all(e.lens is Lens.READER and e.reasoning for e in train)
    assert report["cleaning"]["dropped"] == {"near duplicate of another split": 1}
    assert report["train"]["offered"] == report["cleaning"]["kept"] == len(corpus)
    assert report["val"]["offered"] == 2
    assert report["damaged_rows"] == {"count": 0, "first": []}
    assert "damaged" not in result.stderr


@pytest.mark.parametrize(
    ("lens", "folder", "name", "splits"),
    [
        ("author", "source", "goemotions", ("train.tsv.gz", "dev.tsv")),
        ("reader", "situations", "empathetic", ("situations_train.tsv.gz", "situations_valid.tsv.gz")),
    ],
)
def test_cot_counts_and_shows_damaged_rows_of_every_split(
    lens: str, folder: str, name: str, splits: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    corpora, out = request.getfixturevalue(folder), tmp_path / "out"
    for split in splits:
        path = corpora / name / split
        path.write_bytes(path.read_bytes() + (gzip.compress(b"torn\n") if path.suffix == ".gz" else b"torn\n"))
    result = CliRunner().invoke(data, ["cot", "--lens", lens, "--source", str(corpora), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "2 damaged rows were passed over" in result.stderr
    report = json.loads((out / f"{name}_cot_report.json").read_text(encoding="utf-8"))
    assert report["damaged_rows"]["count"] == 2
    assert all(any(f"{split}, line" in cause for cause in report["damaged_rows"]["first"]) for split in splits)
    assert report["cleaning"]["read"] == report["cleaning"]["kept"] + sum(report["cleaning"]["dropped"].values())


def test_cot_keeps_the_embeddings_by_which_it_drops_texts(source: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", tmp_path / "c.yaml"
    config.write_text("{embeddings: {drop: [outlier]}, linguistic: {check: false}}", encoding="utf-8")
    arguments = ["cot", "--source", str(source), "--out", str(out), "--config", str(config)]
    times = []
    for _ in range(2):
        result = CliRunner().invoke(data, arguments)
        assert result.exit_code == 0, result.output
        times.append([path.stat().st_mtime_ns for path in (out / CACHE).iterdir()])
    assert len(times[0]) == 1
    assert times[0] == times[1]
    report = json.loads((out / "goemotions_cot_report.json").read_text(encoding="utf-8"))
    assert report["cleaning"]["filters"]["flags"]["in"] == report["cleaning"]["read"] - 3


@pytest.mark.parametrize("command", ["prepare", "cot", "explore"])
def test_a_missing_folder_and_a_bad_config_are_expected_failures(command: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(EmotionLRMError, match="does not exist"):
        CliRunner().invoke(data, [command, "--source", str(tmp_path / "no")], catch_exceptions=False)
    config = tmp_path / "bad.yaml"
    config.write_text("cot: {per_lable: 3}", encoding="utf-8")
    with pytest.raises(EmotionLRMError, match="per_lable"):
        CliRunner().invoke(data, [command, "--source", str(source), "--config", str(config)], catch_exceptions=False)


def test_the_shipped_config_states_the_defaults() -> None:
    from toolkit.assets import asset
    from toolkit.config import load_config
    from toolkit.corpora.prepare import DataConfig

    assert load_config(DataConfig, asset("data", "configs", "goemotions.yaml")) == DataConfig()
