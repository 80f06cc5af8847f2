"""What README, tutorials and how-to pages tell a reader to type, typed: page by page, in a folder of its own.

Commands in indented blocks are not typed, but for the readings of README: they name files, corpora and models that a
reader has. That the program understands every one of them is what test_pages.py sees to.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from toolkit.cli import main

from .test_pages import PAGES as EVERY_PAGE
from .test_pages import calls, code

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in ("tutorial", "how-to") for path in (ROOT / "docs" / folder).glob("*.md"))
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = {page: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The readings of texts that README shows; that of --lens both, which builds another model, is in test_second_lens.py.
READINGS = {tuple(args): None for line in code(README) for args in calls(line) if '"' in line and "both" not in args}

RUN_BY = {
    ("docs/api.md", "sh"): "tests/apps/api/test_real.py",
    ("docs/python-api.md", "python"): "tests/inference/test_python_api.py",
}
NEVER_RUN = {
    ("docs/scale.md", "console"): "needs a Ray cluster and an object store",
    ("docs/scale.md", "python"): "needs a Ray cluster, Dask and Spark",
    ("docs/tutorial/first-reading.md", "console"): "makes an environment and installs into it, as .ci/run does",
    ("docs/tutorial/train-your-own.md", "console"): "installs, as .ci/run does",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the repository's root to somebody who reads in it, and may be written to."""
    (tmp_path / "models").mkdir()
    for name in ("data", "models/configs", "models/adapters"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What bash makes of a script, with the `emotion-lrm` of this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", [page for page in PAGES if TYPED[page]], ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_works(page: Path, checkout: Path, default_model_path: Path) -> None:
    assert default_model_path.is_file()
    done = shell("\n".join(TYPED[page]), checkout)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_pages_that_can_be_followed_are_followed() -> None:
    followed = {page.stem for page in PAGES if TYPED[page]}
    assert followed >= {"first-reading", "classify-a-file", "train-your-own", "files", "chat", "evaluate"}


def test_the_program_in_the_readme_runs(default_model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert default_model_path.is_file()
    (program,) = PYTHON.findall(README)
    exec(program, {})
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("args", READINGS, ids=" ".join)
def test_a_reading_in_the_readme_is_printed(
    args: tuple[str, ...], default_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default_model_path.is_file()
    assert main(args) == 0
    assert capsys.readouterr().out


def test_every_block_of_code_is_run_or_has_a_reason() -> None:
    found = {
        (page.relative_to(ROOT).as_posix(), kind)
        for page in EVERY_PAGE
        for kind in re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if kind not in ("text", "yaml", "json")
    }
    run_here = {(page.relative_to(ROOT).as_posix(), "sh") for page in PAGES if TYPED[page]} | {("README.md", "python")}
    assert found == run_here | RUN_BY.keys() | NEVER_RUN.keys()
    for (page, _), test in RUN_BY.items():
        assert f'"{Path(page).name}"' in (ROOT / test).read_text(encoding="utf-8")


def test_programs_that_are_never_run_find_what_they_import_of_ours() -> None:
    for page, kind in NEVER_RUN:
        for program in PYTHON.findall((ROOT / page).read_text(encoding="utf-8")) if kind == "python" else ():
            compile(program, page, "exec")
            ours = re.findall(r"^from toolkit.*", program, re.MULTILINE)
            assert ours
            exec("\n".join(ours), {})


def test_what_pages_say_is_printed_is_printed(generate: ModuleType, default_model_path: Path, checkout: Path) -> None:
    assert default_model_path.is_file()
    shown = [
        (argument, part)
        for page in generate.pages()
        for kind, argument, part in re.findall(
            r"<!-- generated: (output) (.+?) -->\s*```text\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
        )
        if kind == "output"
    ]
    assert shown
    for command, printed in shown:
        now, then = json.loads(shell(command, checkout).stdout), json.loads(printed)
        assert list(now) == list(then)
        assert (now["emotion"], now["text"]) == (then["emotion"], then["text"]), "run: make examples"


def test_rows_and_checks_have_the_keys_that_are_explained(default_model_path: Path, checkout: Path) -> None:
    assert default_model_path.is_file()
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")

    def keys(heading: str) -> list[str]:
        return re.findall(r"^\| `(\w+)` \|", page.split(f"\n## {heading}\n")[1].split("\n## ")[0], re.MULTILINE)

    (checkout / "x.txt").write_text("Thank you!\n", encoding="utf-8")
    assert shell("emotion-lrm batch x.txt -o x.jsonl --mode fast", checkout).returncode == 0
    row = json.loads((checkout / "x.jsonl").read_text(encoding="utf-8"))
    assert list(row) == [*keys("A row of a file"), *keys("A reading")]
    told = json.loads(shell("emotion-lrm doctor --json", checkout).stdout)
    assert list(told) == keys("The doctor")
    model = json.loads(shell("emotion-lrm models list --json", checkout).stdout.splitlines()[0])
    assert list(model) == keys("The models")
