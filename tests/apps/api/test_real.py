"""The server on the default model, as a user starts it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit import EmotionModel

from ...doors.nasty import NASTY

COMMAND = "import sys; from toolkit.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"
PAGE = Path(__file__).parents[3] / "docs" / "api.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
EXAMPLES = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
TEXTS = ["I feel disappointed and ignored...", *NASTY.values()]


@pytest.fixture(scope="module")
def real_server(serving: Any, default_model_path: Path) -> Iterator[Any]:
    assert default_model_path.is_file()
    with serving("--threads", "1", "--timeout", "600", script=COMMAND) as running:
        yield running


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_runs(real_server: Any, example: str) -> None:
    command = shlex.split(example.replace("localhost:8000", f"127.0.0.1:{real_server.port}"))
    done = subprocess.run([*command, "-sS"], capture_output=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers
    assert all("error" not in answer or answer["error"] is None for answer in answers) or '""' in example


def test_the_answer_is_what_the_model_says(real_server: Any, default_model: EmotionModel) -> None:
    for mode, taxonomy in (("fast", "goemotions"), ("explain", "ekman")):
        here = default_model.analyze(TEXTS[0], mode=mode, taxonomy=taxonomy)
        there = real_server.analyze(TEXTS[0], mode=mode, taxonomy=taxonomy).json
        assert list(there) == list(here.to_dict())
        assert there["emotion"] == here.emotion
        assert there["confidence"] == pytest.approx(here.confidence, abs=0.02)
        assert bool(there["reasoning"]) == (mode == "explain")


def test_every_text_is_read(real_server: Any) -> None:
    rows = real_server.ask("/analyze_batch", {"texts": TEXTS, "mode": "fast"}).rows
    assert [row["text"] for row in rows] == TEXTS
    assert {row["status"] for row in rows} == {"ok"}
    assert [real_server.analyze(text, mode="fast").status for text in TEXTS] == [200] * len(TEXTS)


def test_a_lens_that_the_model_has_not_learned_is_refused(real_server: Any) -> None:
    for lens in ("reader", "both"):
        answer = real_server.analyze("text", lens=lens)
        assert (answer.status, answer.code) == (422, "not_possible")
