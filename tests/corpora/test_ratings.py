"""The per-rater release is read in each form that people have; damage is named or counted."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.ratings import Rating, find_ratings, read_ratings
from toolkit.corpora.tables import Damage
from toolkit.errors import DataError

LABELS = load_taxonomy("goemotions").labels
FULL = ("text", "id", "author", "subreddit", "link_id", "parent_id", "created_utc", "rater_id", "example_very_unclear")
RATINGS = [
    Rating("a", 'He said "no", twice.', ("anger", "disapproval"), "5"),
    Rating("a", 'He said "no", twice.', (), "8"),
    Rating("b", "What a day,\nreally.", ("joy",), "5"),
]


def cells(rating: Rating) -> dict[str, str]:
    row = dict.fromkeys(FULL, "x") | {label: str(int(label in rating.labels)) for label in LABELS}
    unclear = "False" if rating.labels else "True"
    return row | {"text": rating.text, "id": rating.id, "rater_id": str(rating.rater), "example_very_unclear": unclear}


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("folder", ["goemotions", "goemotions/data", ""])
def test_the_three_parts_are_read_in_order(tmp_path: Path, folder: str) -> None:
    for number, rating in enumerate(RATINGS, 1):
        write_csv(tmp_path / folder / f"goemotions_{number}.csv", [cells(rating)])
    assert list(read_ratings(tmp_path)) == RATINGS


def test_one_file_may_lack_the_raters(tmp_path: Path) -> None:
    keep = ("id", "text", "example_very_unclear", *LABELS)
    write_csv(tmp_path / "goemotions.csv", [{k: cells(r)[k] for k in keep} for r in RATINGS])
    assert [(r.labels, r.rater) for r in read_ratings(tmp_path)] == [(r.labels, None) for r in RATINGS]


def test_the_raw_folder_comes_first_and_may_be_packed_and_tab_separated(tmp_path: Path) -> None:
    raw = tmp_path / "goemotions" / "raw"
    raw.mkdir(parents=True)
    write_csv(tmp_path / "goemotions.csv", [cells(RATINGS[0])])
    row = cells(RATINGS[0])
    with gzip.open(raw / "ratings_sample.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    assert list(read_ratings(tmp_path)) == RATINGS[:1]
    assert find_ratings(tmp_path) == [raw / "ratings_sample.tsv.gz"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"joy": "2"}, "'2' in the column joy"),
        ({"example_very_unclear": "maybe"}, "'maybe' in the column example_very_unclear"),
        ({"text": " "}, "its id or its text"),
        ({"id": ""}, "its id or its text"),
    ],
)
def test_damaged_rows_are_named_or_counted(tmp_path: Path, change: dict[str, str], cause: str) -> None:
    write_csv(tmp_path / "goemotions.csv", [cells(RATINGS[2]) | change, cells(RATINGS[0])])
    with pytest.raises(DataError, match=rf"line 2, .*{cause}"):
        list(read_ratings(tmp_path))
    damage = Damage()
    assert list(read_ratings(tmp_path, damage)) == RATINGS[:1]
    assert damage.count == 1


def test_a_missing_part_column_or_release_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no per-rater release"):
        list(read_ratings(tmp_path))
    write_csv(tmp_path / "goemotions_1.csv", [cells(RATINGS[0])])
    with pytest.raises(DataError, match=r"goemotions_2\.csv is missing"):
        list(read_ratings(tmp_path))
    write_csv(tmp_path / "goemotions" / "raw" / "all.csv", [{"id": "a", "text": "b", "joy": "1"}])
    with pytest.raises(DataError, match="lacks the column 'admiration'"):
        list(read_ratings(tmp_path))
