"""What the growth of a cluster says on its page, with numbers worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from toolkit.apps.cluster.extrapolation import BEGIN, END, Pace, Run, fill_page, pace_of, written
from toolkit.apps.cluster.growth import Task, around, expected, planned, write_rows
from toolkit.apps.cluster.growth_plot import draw_growth
from toolkit.errors import DataError
from toolkit.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
STARTS, RATES = {"local": 2.0, "ray": 12.0}, {"local": 50.0, "ray": 40.0}


def runs() -> list[Run]:
    """Local: 2 s and 50 rows a second and worker; Ray: 12 s and 40."""
    found = [
        Run(engine, workers, rows, "fast", STARTS[engine] + rows / (RATES[engine] * workers))
        for engine in ("local", "ray")
        for workers in (1, 2)
        for rows in (100, 1000, 10000)
    ]
    return [*found, Run("local", 2, 100, "explain", 12.0)]


def figures() -> dict[str, Any]:
    return {
        "machine": {"measured": "2026-01-02T03:04:05Z", "cpu": "A processor", "usable": 2},
        "ray": "2.60.0", "model": "a-model", "niceness": "As nice as the rest",
        "runs": [asdict(run) for run in runs()],
        "bytes_per_row_jsonl": 1000.0, "bytes_per_row_parquet": 250.0, "rows_counted_per_second": 100_000,
        "parts_noted_per_second": 80.0,
    }  # fmt: skip


def test_a_line_through_the_two_largest() -> None:
    small, less, more = (Run("ray", 1, rows, "fast", took) for rows, took in ((10, 99.0), (100, 12.0), (1100, 32.0)))
    assert pace_of([small, more, less]) == Pace(10.0, 50.0)
    assert pace_of([less]) is None
    assert pace_of([small, less]) is None


def test_the_arithmetic_of_a_billion() -> None:
    text = written(figures())
    # 10^9 / 40 / 3600 = 6,944 core-hours; x .04 = 278; 100 texts / (12 - 2) s / 2 workers = 5 a second: 55,556
    for told in (
        "| local | 1 | 4.0 s | 22.0 s | 202.0 s | 50.0 | 2.0 s |",
        "| ray | 2 | 13.2 s | 24.5 s | 137.0 s | 80.0 | 12.0 s |",
        "- Ray instead of local, 2 workers: +10.0 s at the start, and then +25.0 % time a row.",
        "- 2 workers instead of one, engine ray: 2.00 times the rows a second.",
        "| core-hours, labels only | 1,000,000,000 / 40.0 / 3,600 | 6,944 |",
        "| hours on 1,000 cores | 6,944 / 1,000 | 6.9 |",
        "| cost at 0.04 dollars a core-hour (assumed) | 6,944 x 0.04 | 278 dollars |",
        "= 5.00 a second; 1,000,000,000 / 5.00 / 3,600 | 55,556 |",
        "| output as parquet | 1,000,000,000 x 250 bytes | 0.25 TB |",
        "80 parts a second x 10,000 rows = 800,000 rows a second | 20,000 |",
        "1,250,000,000 / 1,000 bytes a row = 1,250,000 rows a second | 31,250 |",
    ):
        assert told in text
    assert text.index("notes one by one") < text.index("all rows into one file")  # the lowest limit first


def test_only_the_place_for_figures_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    fill_page(page, figures())
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{written(figures())}{END}\nafter\n"
    page.write_text("no place", encoding="utf-8")
    with pytest.raises(DataError, match="no place for figures"):
        fill_page(page, figures())


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    """The page that ships holds what its figures give, or says that there are none."""
    measured, page = PAGE.with_suffix(".json"), tmp_path / "scale.md"
    shipped = PAGE.read_text(encoding="utf-8")
    if not measured.exists():
        assert f"{BEGIN}\nNot measured yet.\n{END}" in shipped
        return
    page.write_text(shipped, encoding="utf-8")
    fill_page(page, json.loads(measured.read_text(encoding="utf-8")))
    assert page.read_text(encoding="utf-8") == shipped


def test_what_would_take_too_long_is_seen_before() -> None:
    assert list(planned((100, 10), (1, 2)))[:3] == [Task("local", 2, 10), Task("ray", 2, 10), Task("local", 1, 10)]
    assert expected(Task("ray", 2, 20_000), runs()) == pytest.approx(12 + 20_000 / 80)
    assert expected(Task("local", 2, 300, "explain"), runs()) == pytest.approx(36)
    assert expected(Task("ray", 8, 300), runs()) == 0


def test_a_picture_and_what_grows_besides(tmp_path: Path) -> None:
    draw_growth(runs(), tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    source = write_rows(tmp_path / "2300.jsonl", 2300)
    texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    assert len(set(texts)) == 2300
    row = {"id": 0, "row": 0, "status": "empty", "error": None, "text": ""}
    (tmp_path / "local-2-2300-fast.jsonl").write_text(2300 * (json.dumps(row) + "\n"), encoding="utf-8")
    found = around(Settings(mode="fast"), tmp_path, Run("local", 2, 2300, "fast", 1.0))
    assert found["bytes_per_row_jsonl"] == len(json.dumps(row)) + 1
    assert found["rows_counted_per_second"] > 1000
    assert found["parts_noted_per_second"] > 0
