"""``python -m toolkit.apps.cluster.growth``: what Ray costs over the engine local, and what a second worker brings."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from toolkit.apps.batch import run_batch, wish_of
from toolkit.apps.cluster.run import batch_on_ray
from toolkit.apps.tables import open_table
from toolkit.apps.workers import open_workers
from toolkit.assets import asset
from toolkit.settings import Settings, model_options

TEXTS = asset("data", "samples", "situations_2k.jsonl")


@click.command()
@click.option("--rows", type=click.IntRange(1), multiple=True, default=(100, 1_000, 10_000), show_default=True)
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@model_options
def growth(rows: Sequence[int], workers: Sequence[int], settings: Settings) -> None:
    """Read as many rows of the samples with both engines, one thread a worker, and print a JSON line each."""
    for count in rows:
        for number in workers:
            seconds = measured(count, number, settings)
            click.echo(json.dumps({"rows": count, "workers": number, **seconds}))


def measured(count: int, workers: int, settings: Settings) -> dict[str, float]:
    """Seconds from the call to the finished file, loading and Ray's own start among them."""
    alike = settings.model_copy(update={"threads": 1})
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder, "in.jsonl"), count)
        began = time.monotonic()
        with open_workers(alike, workers) as model:
            run_batch(model, open_table(source), Path(folder, "local.jsonl"), wish=wish_of(alike))
        local = time.monotonic()
        batch_on_ray(str(source), str(Path(folder, "ray.jsonl")), alike, workers=workers)
        ray = time.monotonic()
    return {"local": round(local - began, 2), "ray": round(ray - local, 2)}


def write_rows(path: Path, count: int) -> Path:
    """A file of ``count`` different texts: the samples, each with a number from the second time on."""
    texts = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            again, place = divmod(number, len(texts))
            text = f"{texts[place]} {again}" if again else texts[place]
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    return path


if __name__ == "__main__":
    growth()
