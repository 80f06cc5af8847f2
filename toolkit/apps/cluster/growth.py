"""``python -m toolkit.apps.cluster.growth``: what a second worker brings, and what Ray costs over the engine local.

Every figure is the wall time of one command as a person gives it, from its start to the finished file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from convert.files import replacing
from toolkit.apps.batch import wish_of
from toolkit.apps.cluster.extrapolation import Run, fill_page, pace_of
from toolkit.apps.cluster.growth_plot import draw_growth
from toolkit.apps.cluster.parts import Parts
from toolkit.apps.cluster.run import portable
from toolkit.apps.results import finish
from toolkit.apps.tables import open_table
from toolkit.apps.tally import Tally
from toolkit.assets import asset
from toolkit.benchmark.machine import describe_machine
from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings, model_options

TEXTS = asset("data", "samples", "situations_2k.jsonl")
ENGINES = ("local", "ray")
_COMMAND = "import sys; from toolkit.cli import main; sys.exit(main())"
_NOTES = 200


@click.command()
@click.option("--rows", type=click.IntRange(1), multiple=True, default=(100, 1_000, 10_000), show_default=True)
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--explain-rows", type=click.IntRange(0), default=100, show_default=True, help="Rows with reasoning.")
@click.option("--budget", type=float, default=450, show_default=True, help="Seconds; what would pass them is left out.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=".", help="For scale.json, scale.png.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="The page to write the figures into.")
@click.option("--from", "earlier", type=click.Path(exists=True, path_type=Path), help="A scale.json; measure nothing.")
@model_options
def growth(
    rows: Sequence[int],
    workers: Sequence[int],
    explain_rows: int,
    budget: float,
    out: Path,
    page: Path | None,
    earlier: Path | None,
    settings: Settings,
) -> None:
    """Read ever more of the samples with both engines, one thread a worker; write the figures and a picture."""
    if earlier:
        figures = json.loads(earlier.read_text(encoding="utf-8"))
    else:
        wanted = settings.model_copy(update={"threads": 1})
        plan = [*planned(rows, workers), Task("local", max(workers), explain_rows, "explain")]
        figures = measure(wanted, sorted(plan, key=lambda task: task.rows), budget)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "scale.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw_growth([Run(**run) for run in figures["runs"]], out / "scale.png")
    if page:
        fill_page(page, figures)


@dataclass(frozen=True, slots=True)
class Task:
    """One command to measure."""

    engine: str
    workers: int
    rows: int
    mode: str = "fast"


def planned(rows: Sequence[int], workers: Sequence[int]) -> Iterator[Task]:
    """Every engine with every number of workers; of equal sizes the quicker ones first."""
    for count in sorted(rows):
        for number in sorted(workers, reverse=True):
            yield from (Task(engine, number, count) for engine in ENGINES)


def measure(settings: Settings, plan: Sequence[Task], budget: float) -> dict[str, Any]:
    """The figures as ``scale.json`` holds them; a task that would end after ``budget`` seconds is left out."""
    model = Path(portable(settings, 1).model or "").stem  # built before the clock runs
    began, runs = time.monotonic(), list[Run]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command(Task("local", 1, 10), settings, folder)  # brings the model into memory
        for task in plan:
            left = budget - (time.monotonic() - began)
            if task.rows and expected(task, runs) < left:
                runs.append(Run(**asdict(task), seconds=round(command(task, settings, folder), 2)))
                click.echo(json.dumps(asdict(runs[-1])), err=True)
            elif task.rows:
                click.echo(f"Left out, {left:.0f} s are left: {task}", err=True)
        largest = max((run for run in runs if run.mode == "fast"), key=lambda run: run.rows)
        return {
            "machine": describe_machine(), "ray": version("ray"), "model": model,
            "niceness": "Ray's workers run at the niceness of the rest",
            "runs": [asdict(run) for run in runs], **around(settings, folder, largest),
        }  # fmt: skip


def expected(task: Task, runs: Sequence[Run]) -> float:
    """Seconds that a task should take by what was measured so far; 0 where nothing is known."""
    alike = [run for run in runs if (run.engine, run.workers, run.mode) == (task.engine, task.workers, task.mode)]
    pace = pace_of(alike)
    if pace is not None:
        return pace.start + task.rows / pace.rows_per_second
    return max((run.seconds * task.rows / run.rows for run in alike), default=0.0)


def command(task: Task, settings: Settings, folder: Path) -> float:
    """The seconds of one run of ``emotion-lrm batch``, in a process of its own."""
    source = write_rows(folder / f"{task.rows}.jsonl", task.rows)
    words = ["--engine", task.engine, "--workers", str(task.workers), "--mode", task.mode, "--threads", "1"]
    for name in ("model", "lens", "taxonomy", "adapter"):
        value = getattr(settings, name)
        words += [f"--{name}", str(value)] if value is not None else []
    asked = ["batch", str(source), "-o", str(_output(folder, task)), "--overwrite", *words]
    environ = {**os.environ, "RAY_worker_niceness": "0"}  # else one engine would step back behind what else runs
    environ.pop("RAY_ADDRESS", None)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _COMMAND, "-q", *asked], env=environ, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise EmotionLRMError(f"{task} ended with {done.returncode}: {done.stderr[-500:]}", "Run that command alone.")
    return seconds


def around(settings: Settings, folder: Path, run: Run) -> dict[str, float]:
    """What else grows with the rows: their bytes, counting them, and noting finished parts."""
    wish = wish_of(settings.model_copy(update={"mode": "fast"}))
    rows = _output(folder, Task(run.engine, run.workers, run.rows))
    size = rows.stat().st_size
    table = open_table(folder / f"{run.rows}.jsonl")
    began = time.monotonic()
    count = sum(1 for _ in table.rows())
    counted = time.monotonic() - began
    finish(rows, folder / "rows.parquet", "parquet", wish)
    parts = Parts(folder / "parts", "jsonl")
    parts.begin({}, 1, resume=False)
    began = time.monotonic()
    for number in range(_NOTES):
        parts.note(number, Tally(rows=1))
    noted = time.monotonic() - began
    return {
        "bytes_per_row_jsonl": round(size / run.rows, 1),
        "bytes_per_row_parquet": round((folder / "rows.parquet").stat().st_size / run.rows, 1),
        "rows_counted_per_second": round(count / counted),
        "parts_noted_per_second": round(_NOTES / noted, 1),
    }


def write_rows(path: Path, count: int) -> Path:
    """A file of ``count`` different texts: the samples, each with a number from the second time on."""
    texts = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            again, place = divmod(number, len(texts))
            text = f"{texts[place]} {again}" if again else texts[place]
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    return path


def _output(folder: Path, task: Task) -> Path:
    return folder / f"{task.engine}-{task.workers}-{task.rows}-{task.mode}.jsonl"


if __name__ == "__main__":
    growth()
