"""The clean rows, their flags and the report: the same bytes each time, and nothing done twice."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit.assets import asset
from toolkit.config import load_config
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.agreement import AgreementConfig
from toolkit.corpora.commands import data
from toolkit.corpora.embeddings import DEFAULT_MODEL, locate
from toolkit.corpora.jsonl import read_examples
from toolkit.corpora.linguistic import LinguisticConfig
from toolkit.corpora.neutral import NeutralConfig
from toolkit.corpora.prepare import DataConfig, clean_training
from toolkit.corpora.prepared import CACHE, FLAGS, PAGE, REPORT, ROWS, TRAIN, VAL, prepare
from toolkit.corpora.suspects import EMBEDDED_SCORES, EmbeddingConfig
from toolkit.errors import DataError, EmotionLRMError

LABELS = load_taxonomy("goemotions").labels


def add_votes(source: Path, rows: list[str], end: str) -> None:
    header = "id\tsplit\tofficial_labels\tn_sampled_ratings\tsampled_votes\ttext"
    content = ("\n".join([header, *rows]) + "\n").encode()
    (source / "goemotions" / f"votes.tsv{end}").write_bytes(gzip.compress(content) if end else content)


def test_two_runs_give_the_same_bytes_and_the_report_adds_up(source: Path, tmp_path: Path) -> None:
    report, before = prepare(DataConfig(), source, tmp_path / "one")
    prepare(DataConfig(), source, tmp_path / "two")
    assert not before
    for name in (ROWS, TRAIN, VAL, FLAGS, REPORT, PAGE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert report["read"] == report["kept"] + sum(report["dropped"].values())
    rows = list(read_examples(tmp_path / "one" / ROWS))
    flags = [json.loads(line) for line in (tmp_path / "one" / FLAGS).read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in flags] == [e.id for e in rows]
    assert all(0 <= score <= 1 for row in flags for score in row["scores"].values())
    parts = [list(read_examples(tmp_path / "one" / name)) for name in (TRAIN, VAL)]
    assert report["parts"] == {TRAIN: len(parts[0]), VAL: len(parts[1])}
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in rows)
    assert len(parts[1]) == 10  # a tenth of the 21 texts of each of five labels
    html = (tmp_path / "one" / PAGE).read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 2
    assert all(reason in html for reason in report["dropped"])


def test_what_is_there_is_not_done_again_unless_something_changed(source: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", DataConfig(linguistic=LinguisticConfig(check=False))
    first, _ = prepare(config, source, out)
    assert prepare(config, source, out) == (first, True)
    assert not prepare(config, source, out, limit=20)[1]
    assert not prepare(config, source, out)[1]
    (out / ROWS).write_text("torn", encoding="utf-8")
    assert prepare(config, source, out) == (first, False)
    (out / REPORT).write_text("[]", encoding="utf-8")
    assert not prepare(config, source, out)[1]
    dev = source / "goemotions" / "dev.tsv"
    dev.write_text(dev.read_text(encoding="utf-8") + "Another row here.\t27\td4\n", encoding="utf-8")
    assert not prepare(config, source, out)[1]


def test_an_edited_word_list_or_taxonomy_is_work_to_do_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out, config = tmp_path / "root", tmp_path / "out", DataConfig(linguistic=LinguisticConfig(check=False))
    shutil.copytree(asset("prompts"), root / "prompts")
    shutil.copytree(asset("data", "configs"), root / "data" / "configs")
    monkeypatch.setattr("toolkit.assets._PACKAGE", root / "toolkit")
    prepare(config, source, out)
    rules = ["data/configs/flags.yaml", "data/configs/languages.yaml", "prompts/teacher/words.yaml"]
    taxonomies = [path.relative_to(root).as_posix() for path in (root / "prompts" / "taxonomies").glob("*.yaml")]
    assert len(taxonomies) == 5
    for name in (*rules, *taxonomies):
        assert prepare(config, source, out)[1], name
        with (root / name).open("a", encoding="utf-8") as file:
            file.write("# edited\n")
        assert not prepare(config, source, out)[1], name


@pytest.mark.parametrize("end", ["", ".gz"])
def test_votes_become_soft_targets(source: Path, end: str) -> None:
    add_votes(source, ["pride-0-0\ttrain\t21\t2\t21:1,17:1\tx", "pride-0-1\ttrain\t21\t1\t21:zero\tx"], end)
    examples, report = clean_training(DataConfig(), source)
    soft = {e.id: e.soft for e in examples if e.soft}
    assert soft == {"pride-0-0": {"joy": 0.25, "pride": 0.75}}
    assert (report.rated, report.damage.count) == (1, 1)


def test_without_official_splits_the_ratings_give_the_texts(tmp_path: Path) -> None:
    raw = tmp_path / "goemotions" / "raw"
    raw.mkdir(parents=True)
    header = ["id", "text", "rater_id", "example_very_unclear", *LABELS]
    rows = [
        ["a", "So proud of you.", rater, "FALSE", *("1" if label == seen else "0" for label in LABELS)]
        for rater, seen in (("1", "pride"), ("2", "pride"), ("3", "joy"))
    ]
    (raw / "all.tsv").write_text("\n".join("\t".join(row) for row in [header, *rows]), encoding="utf-8")
    examples, _ = clean_training(DataConfig(agreement=AgreementConfig(prior=0)), tmp_path)
    assert [(e.labels, e.soft) for e in examples] == [(("pride",), {"joy": 1 / 3, "pride": 2 / 3})]


def test_the_cap_and_the_flags_reach_the_rows(source: Path) -> None:
    config = DataConfig(neutral=NeutralConfig(cap=5), linguistic=LinguisticConfig(low_affect=0.5, drop=("low_affect",)))
    examples, report = clean_training(config, source)
    assert report.dropped["over the neutral cap"] == 16
    assert report.dropped["flagged as low_affect"] > 0
    assert report.kept == len(examples) == report.read - sum(report.dropped.values())


def test_damaged_training_rows_are_counted_and_said(source: Path, tmp_path: Path) -> None:
    (source / "goemotions" / "train.tsv").write_text("fine words here\t1\tid\ntorn row\n", encoding="utf-8")
    config = tmp_path / "c.yaml"
    config.write_text("linguistic: {check: false}", encoding="utf-8")
    arguments = ["prepare", "--source", str(source), "--out", str(tmp_path / "o"), "--config", str(config)]
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0, result.output
    assert "1 damaged rows were passed over" in result.stderr
    report = json.loads((tmp_path / "o" / REPORT).read_text(encoding="utf-8"))
    assert report["damaged_rows"]["first"][0].endswith("line 2, is no row of text, label ids and comment id.")


EMBEDDED = DataConfig(embeddings=EmbeddingConfig(check=True, label_error=0.5))


def test_embeddings_add_their_scores_and_are_kept(source: Path, tmp_path: Path) -> None:
    wrong = "Thank you so much for the garden and the park.\t2\twrong\n"
    with gzip.open(source / "goemotions" / "train.tsv.gz", "at", encoding="utf-8") as file:
        file.write(wrong)
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    report, _ = prepare(EMBEDDED, source, out, progress=lambda done, total: told.append((done, total)))
    assert told == [(report["kept"], report["kept"])]
    flags = [json.loads(line) for line in (out / FLAGS).read_text(encoding="utf-8").splitlines()]
    assert list(flags[0]["scores"]) == ["factual", "low_affect", "ambiguous", "sarcastic", *EMBEDDED_SCORES]
    found = {row["id"]: row["notes"]["label_error"] for row in flags if "label_error" in row["flags"]}
    assert found == {"wrong": "labelled anger, reads like gratitude"}
    assert "reads like gratitude" in (out / PAGE).read_text(encoding="utf-8")
    (cached,) = (out / CACHE).iterdir()
    before = cached.stat().st_mtime_ns
    (out / FLAGS).unlink()
    first = (out / REPORT).read_bytes()
    assert not prepare(EMBEDDED, source, out)[1]
    assert (out / REPORT).read_bytes() == first
    assert cached.stat().st_mtime_ns == before


def test_flags_by_embeddings_drop_where_they_are_asked_to(source: Path, tmp_path: Path) -> None:
    strict = EmbeddingConfig(check=True, alike=0.7, drop=("alike",))
    examples, report = clean_training(DataConfig(embeddings=strict), source, cache=tmp_path)
    assert report.dropped["flagged as alike"] > 20
    assert report.filters["flags"].read - report.filters["flags"].dropped == len(examples) == report.kept


def test_another_model_to_drop_by_is_work_to_do_again(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(locate(DEFAULT_MODEL), model)
    strict = DataConfig(
        embeddings=EmbeddingConfig(model=str(model), drop=("outlier",)), linguistic=LinguisticConfig(check=False)
    )
    prepare(strict, source, tmp_path / "out")
    assert prepare(strict, source, tmp_path / "out")[1]
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-4] ^= 1  # the lowest bit of the last weight
    (model / "model.safetensors").write_bytes(weights)
    assert not prepare(strict, source, tmp_path / "out")[1]


def test_the_switch_asks_for_packages_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.corpora.embeddings.find_spec", lambda _: None)
    arguments = ["prepare", "--embeddings", "--source", str(source), "--out", str(tmp_path / "o")]
    with pytest.raises(EmotionLRMError, match="sentence-transformers and cleanlab"):
        CliRunner().invoke(data, arguments, catch_exceptions=False)
    assert not (tmp_path / "o").exists()


SLOWLY = """
import sys
from toolkit.corpora import embeddings
from toolkit.corpora.commands import data
embeddings.CHUNK = 20
data(["prepare", "--embeddings", "--source", sys.argv[1], "--out", sys.argv[2]], standalone_mode=False)
"""


def test_a_run_that_is_killed_goes_on_and_ends_in_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole, broken = ([sys.executable, "-c", SLOWLY, str(source), str(tmp_path / name)] for name in ("whole", "broken"))
    subprocess.run(whole, check=True, capture_output=True, timeout=300)
    with subprocess.Popen(broken, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        said = [process.stderr.readline() for _ in range(2)]
        process.kill()  # SIGKILL where there is one: nothing gets to tidy up
    assert said[1].startswith("40 of ")
    out = tmp_path / "broken"
    assert not (out / REPORT).exists()
    first = {path.name: path.stat().st_mtime_ns for path in (out / CACHE).glob("*-0000[01].npy")}
    assert len(first) == 2
    subprocess.run(broken, check=True, capture_output=True, timeout=300)
    for name in (ROWS, TRAIN, VAL, FLAGS, REPORT, PAGE):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [path.suffix for path in (out / CACHE).iterdir()] == [".npy"]


def test_without_embeddings_nothing_heavy_is_imported(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom toolkit.corpora.prepare import DataConfig\n"
        "from toolkit.corpora.prepared import prepare\n"
        f"prepare(DataConfig(), Path({str(source)!r}), Path({str(tmp_path / 'o')!r}))\n"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'cleanlab') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_an_empty_folder_is_an_expected_failure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train split"):
        prepare(DataConfig(), tmp_path, tmp_path / "out")


def test_the_file_that_ships_holds_the_defaults() -> None:
    assert load_config(DataConfig, asset("data", "configs", "goemotions.yaml")) == DataConfig()
