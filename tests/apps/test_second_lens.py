"""The shipped models beside the default one, built from their adapters: both lenses, and texts that tell a feeling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from convert.header import check_header
from toolkit import EmotionModel
from toolkit.apps.conversion import convert
from toolkit.apps.export import export, read_source
from toolkit.assets import asset
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.lens import Lens

pytestmark = pytest.mark.real

TEXT = "I feel disappointed and ignored..."
TOLD = "emotion-smollm2-135m-told"
REMARK = (
    "This model learned from GoEmotions and EmpatheticDialogues; its licence, CC-BY-NC-4.0, forbids commercial use."
)
TERMS = "https://creativecommons.org/licenses/by-nc/4.0/"
GOLDEN_TEXTS, GOLDEN_HITS = 40, 32  # 36 where it was measured


def read_both(cache: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What `analyze --lens both` prints with that cache: the object, and standard error."""
    command = [sys.executable, "-m", "toolkit.cli", *options, "analyze", "--lens", "both", "--json", TEXT]
    environ = {**os.environ, "EMOTION_LRM_CACHE": str(cache)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of somebody who has read nothing yet."""
    return tmp_path_factory.mktemp("first") / "cache"


@pytest.fixture(scope="module")
def first(cache: Path) -> tuple[dict[str, Any], str]:
    """The first reading through both lenses, which builds the model, asked for with ``-q``."""
    assert not cache.exists()
    return read_both(cache, "-q")


@pytest.fixture(scope="module")
def two_lens_path(first: tuple[dict[str, Any], str], cache: Path) -> Path:
    """The model that the first reading built."""
    assert first
    (path,) = (cache / "models").glob("*.gguf")
    return path


def test_the_first_reading_through_both_lenses_says_the_licence_once(
    first: tuple[dict[str, Any], str], cache: Path
) -> None:
    assert first[1].splitlines() == [REMARK]
    again, err = read_both(cache)
    assert err == ""
    assert again["author"]["emotion"] == first[0]["author"]["emotion"]


def test_both_lenses_answer_with_all_their_labels(first: tuple[dict[str, Any], str]) -> None:
    found, _ = first
    assert (found["author"]["lens"], found["reader"]["lens"]) == ("author", "reader")
    assert (len(found["author"]["scores"]), len(found["reader"]["scores"])) == (28, 32)
    assert found["author"]["emotion"] == "disappointment"
    assert found["reader"]["emotion"] in ("disappointed", "sad", "lonely")
    calibration = json.loads((asset("models", "adapters", "two-lens") / "calibration.json").read_text(encoding="utf-8"))
    assert found["divergence"]["noise_line"] == calibration["noise_line"]


def test_its_export_is_under_its_own_licence(two_lens_path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(export, ["--out", str(tmp_path / "out"), "--model", str(two_lens_path)])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == REMARK
    told = (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8")
    assert TERMS in told
    assert "Apache License" not in told
    assert "Apache License" in (tmp_path / "out" / "LICENSE-Apache-2.0").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "reader-label.gbnf").is_file()


def test_building_its_adapter_oneself_keeps_lenses_and_licence(two_lens_path: Path, tmp_path: Path) -> None:
    base, built = find_base_gguf(load_base("smollm2-135m")), tmp_path / "mine.gguf"
    adapter = asset("models", "adapters", "two-lens")
    given = ["--base", str(base), "--adapter", str(adapter), "-o", str(built), "-t", "BF16"]
    result = CliRunner().invoke(convert, ["merge", *given], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == REMARK
    mine, shipped = read_source(built), check_header(two_lens_path).metadata
    assert mine.lenses == tuple(Lens)
    for key in ("base", "datasets", "licence", "lenses", "taxonomies", "prompt_hash", "calibration"):
        assert mine.told[key] == shipped[f"emotion_lrm.{key}"], key


def test_the_told_model_knows_hard_texts(shipped_path: Callable[[str | None], Path]) -> None:
    lines = asset("data", "samples", "golden.jsonl").read_text(encoding="utf-8").splitlines()[:GOLDEN_TEXTS]
    rows = [json.loads(line) for line in lines]
    with EmotionModel.load(shipped_path(TOLD)) as model:
        readings = list(model.analyze_many([row["text"] for row in rows], mode="fast"))
    best = [sorted(one.scores, key=lambda label, one=one: -one.scores[label])[:5] for one in readings]
    hits = sum(row["emotion"] in five for row, five in zip(rows, best, strict=True))
    assert hits >= GOLDEN_HITS, hits
