"""The notebooks run from top to bottom in a fresh kernel, offline on the samples, and are saved without outputs."""

from __future__ import annotations

import gzip
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

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


@pytest.mark.parametrize("name", ["01_explore", "02_reasoning"])
def test_a_notebook_reads_a_corpus_where_one_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = load_taxonomy("goemotions").labels
    folder = tmp_path / "corpora" / "goemotions"
    folder.mkdir(parents=True)
    with gzip.open(folder / "train.tsv.gz", "wt", encoding="utf-8") as file:
        for example in load_samples(Lens.AUTHOR, 700).train:
            file.write(f"{' '.join(example.text.split())}\t{labels.index(example.labels[0])}\t{example.id}\n")
    monkeypatch.setenv("EMOTION_LRM_CORPORA", str(folder.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    assert execute(name, tmp_path)[0].startswith("700 texts")
