"""Both corpora come from a hub's Parquet branch: fetched by the hub's own client, then read from its cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpora.hub_server import BRANCH, hub
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.hub import PARQUET, parquet_rows
from toolkit.errors import DataError

GOEMOTIONS, EMPATHETIC = "google-research-datasets/go_emotions", "facebook/empathetic_dialogues"
LABELS = load_taxonomy("goemotions").labels
COMMENTS = [
    {"text": "Yay.", "labels": [27, 17], "id": "h1"},
    {"text": "Torn.", "labels": [99], "id": "h2"},
    {"text": "No.", "labels": [10], "id": "h3"},
]
TURNS: list[dict[str, Any]] = [
    {"conv_id": "c:1", "utterance_idx": 1, "context": "proud", "prompt": "He sang_comma_ alone.", "speaker_idx": 7},
    {"conv_id": "c:1", "utterance_idx": 2, "context": "proud", "prompt": "He sang_comma_ alone.", "speaker_idx": 9},
    {"conv_id": "c:2", "utterance_idx": 1, "context": "lonely", "prompt": "Nobody wrote.", "speaker_idx": 9},
    {"conv_id": "c:3", "utterance_idx": 2, "context": "sad", "prompt": "It broke.", "speaker_idx": 4},  # 1 is lost
    {"conv_id": "c:3", "utterance_idx": None, "context": "sad", "prompt": "It broke.", "speaker_idx": 5},
]


def ratings() -> list[dict[str, Any]]:
    """Two ratings as the per-rater release holds them on the hub: numbers and truth values."""
    common = {"author": "x", "subreddit": "x", "link_id": "x", "parent_id": "x", "created_utc": 1.5e9}
    rows = [("h1", "Yay.", 3, False, "joy"), ("h1", "Yay.", 4, True, "anger")]
    return [
        {"text": text, "id": name, **common, "rater_id": rater, "example_very_unclear": unclear}
        | {label: int(label == seen) for label in LABELS}
        for name, text, rater, unclear, seen in rows
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two data sets in the folders of their Parquet branches."""
    folder = tmp_path_factory.mktemp("hub")
    turns = [
        row | {"utterance": f"Turn {n}_comma_ said.", "selfeval": "5|5", "tags": ""} for n, row in enumerate(TURNS)
    ]
    tables = {
        f"{GOEMOTIONS}/simplified/validation/0000.parquet": COMMENTS[:2],
        f"{GOEMOTIONS}/simplified/validation/0001.parquet": COMMENTS[2:],
        f"{GOEMOTIONS}/simplified/train/0000.parquet": COMMENTS[:1],
        f"{GOEMOTIONS}/raw/train/0000.parquet": ratings(),
        f"{EMPATHETIC}/default/validation/0000.parquet": turns,
    }
    for name, rows in tables.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


PROGRAM = """
import json
import sys
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.corpora.ratings import read_ratings
from toolkit.corpora.tables import Damage
from toolkit.errors import DataError
damage, what = Damage(), sys.argv[1]
readers = {
    "dev": lambda: [(e.id, e.text, e.labels) for e in read_goemotions("dev", None, damage)],
    "test": lambda: list(read_goemotions("test")),
    "raw": lambda: [(r.id, r.labels, r.rater) for r in read_ratings(None, damage)],
    "situations": lambda: [(e.id, e.text, e.labels) for e in read_empathetic("dev", None, "situation", damage)],
    "utterances": lambda: [(e.id, e.text, e.labels) for e in read_empathetic("dev", None, "utterance", damage)],
}
try:
    rows = readers[what]()
except DataError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"rows": rows, "damaged": damage.count}))
"""


def read(what: str, address: str, cache: Path) -> dict[str, Any]:
    """What a program of its own reads, for the hub's client takes its address at import."""
    gone = ("EMOTION_LRM_CORPORA", "HF_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_hub_gives_every_form_and_damaged_rows_are_counted(root: Path, tmp_path: Path) -> None:
    assert PARQUET == BRANCH
    with hub(root) as (address, asked):
        dev = read("dev", address, tmp_path)
        fetched = [path for path in asked if "/resolve/" in path]
        assert read("raw", address, tmp_path)["rows"] == [["h1", ["joy"], "3"], ["h1", [], "4"]]
        situations = read("situations", address, tmp_path)
        utterances = read("utterances", address, tmp_path)
        missing = read("test", address, tmp_path)
    assert dev == {"rows": [["h1", "Yay.", ["joy", "neutral"]], ["h3", "No.", ["disapproval"]]], "damaged": 1}
    parts = [path.partition("/simplified/")[2] for path in fetched]
    assert set(parts) == {"validation/0000.parquet", "validation/0001.parquet"}
    told = [["c:1", "He sang, alone.", ["proud"]], ["c:2", "Nobody wrote.", ["lonely"]], ["c:3", "It broke.", ["sad"]]]
    assert situations == {"rows": told, "damaged": 0}
    said = [["c:1/1", "Turn 0, said.", ["proud"]], ["c:2/1", "Turn 2, said.", ["lonely"]]]
    assert utterances == {"rows": said, "damaged": 1}
    assert "has no simplified/test" in missing["error"]


def test_what_was_fetched_once_needs_no_network(root: Path, tmp_path: Path) -> None:
    with hub(root) as (address, _):
        before = read("dev", address, tmp_path)
    assert read("dev", address, tmp_path) == before
    assert "did not give google-research-datasets/go_emotions" in read("dev", address, tmp_path / "empty")["error"]


def test_a_missing_column_and_a_damaged_file_are_named(root: Path, tmp_path: Path) -> None:
    path = root / GOEMOTIONS / "simplified/validation/0000.parquet"
    with pytest.raises(DataError, match="lacks the column 'emotion'") as refused:
        list(parquet_rows(path, ("text", "emotion")))
    assert "text, labels, id" in refused.value.hint
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"torn\.parquet is damaged"):
        list(parquet_rows(torn, ("text",)))
