"""The examples of the Python API page run as they stand, each as a script of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python-api.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_has_an_example_of_every_way_in() -> None:
    shown = "".join(EXAMPLES)
    for word in ("EmotionModel.load", ".analyze(", ".analyze_many(", ".submit(", ".outcomes(", "AsyncEmotionModel"):
        assert word in shown, word


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example-{i}" for i in range(1, len(EXAMPLES) + 1)])
def test_an_example_runs(example: str, default_model_path: Path, tmp_path: Path) -> None:
    assert default_model_path.is_file()
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr
