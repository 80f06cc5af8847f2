"""The notebooks run from top to bottom in a fresh kernel, offline on the samples, and are saved without outputs."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.corpora.conftest import small_corpus
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.chain_texts import load_samples

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("01_explore", "02_reasoning", "03_finetune")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_no_notebook_is_forgotten() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_explains_itself_and_is_saved_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert all(cell.source.count("\n") < 30 for cell in code)


def execute(name: str, folder: Path) -> list[str]:
    """What each code cell printed when the notebook ran in ``folder``; every cell must show something."""
    notebook = read(name)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in code]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_on_the_samples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOTION_LRM_CORPORA", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    execute(name, tmp_path)


LABELS = load_taxonomy("goemotions").labels


def write_split(folder: Path, split: str, examples: Sequence[Example]) -> None:
    """An official split of GoEmotions."""
    rows = [f"{' '.join(e.text.split())}\t{LABELS.index(e.labels[0])}\t{e.id}\n" for e in examples]
    with gzip.open(folder / f"{split}.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(rows)


def write_ratings(folder: Path, examples: Sequence[Example]) -> None:
    """The per-rater release in one file; two raters agree on every text."""
    with open(folder / "goemotions.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "id", "rater_id", "example_very_unclear", *LABELS])
        for e in examples:
            votes = [int(label in e.labels) for label in LABELS]
            table.writerows([e.text, e.id, rater, "False", *votes] for rater in (1, 2))


@pytest.fixture
def goemotions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of GoEmotions in the corpora folder that is named."""
    folder = tmp_path / "corpora" / "goemotions"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EMOTION_LRM_CORPORA", str(folder.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return folder


@pytest.mark.parametrize(
    ("name", "write"),
    [("01_explore", write_ratings), ("02_reasoning", lambda folder, texts: write_split(folder, "train", texts))],
    ids=["01_explore, ratings alone", "02_reasoning, train split"],
)
def test_a_notebook_reads_a_corpus_where_one_is_named(
    name: str, write: Callable[[Path, Sequence[Example]], None], goemotions: Path, tmp_path: Path
) -> None:
    write(goemotions, load_samples(Lens.AUTHOR, 700).train)
    assert execute(name, tmp_path)[0].startswith("700 texts")


def test_the_first_notebook_shows_the_labels_of_the_reader_where_they_are(goemotions: Path, tmp_path: Path) -> None:
    write_split(goemotions, "train", load_samples(Lens.AUTHOR, 700).train)
    folder = goemotions.parent / "empathetic"
    folder.mkdir()
    told = load_samples(Lens.READER, 40).train
    rows = [f"{e.id}\t{e.labels[0]}\t{' '.join(e.text.split())}\n" for e in told]
    (folder / "situations_train.tsv").write_text("conv_id\temotion\tsituation\n" + "".join(rows), encoding="utf-8")
    printed = execute("01_explore", tmp_path)
    assert printed[0].startswith("700 texts from GoEmotions, cleaned; 40 with")
    assert not [text for text in printed if "EmpatheticDialogues is not in the folder" in text]


def test_the_third_notebook_takes_steps_on_a_corpus(
    goemotions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTION_LRM_STEPS", "2")
    texts = small_corpus()
    write_split(goemotions, "train", texts[::2])
    write_split(goemotions, "dev", texts[1:9:2])
    printed = execute("03_finetune", tmp_path)
    assert printed[0] == "53 examples to learn from, 4 to watch\n"
    assert "step   2 of 2: label loss" in printed[2]
