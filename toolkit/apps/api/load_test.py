"""What the server carries: `python -m toolkit.apps.api.load_test` asks it with one caller and with many, in one run.

Callers, server and model share this machine's processors, as they do when a program calls a server beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from queue import SimpleQueue
from statistics import median

import click

from toolkit.assets import asset
from toolkit.errors import EmotionLRMError
from toolkit.settings import Settings, model_options, open_model

ROUNDS = 3
LEAST_EXPLAIN, LEAST_FAST = 2.0, 0.9


@click.command()
@click.option("--callers", type=click.IntRange(2, 256), default=32, show_default=True, help="How many at once.")
@click.option("--texts", "count", type=click.IntRange(8, 300), default=300, show_default=True, help="Texts a round.")
@click.option("--check", is_flag=True, help="Fail where the server carries less than it should.")
@model_options
def load_test(callers: int, count: int, check: bool, settings: Settings) -> None:
    """Compare many callers with one, and the server with the model in process: the median of three rounds each."""
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [str(json.loads(line)["text"]) for line in lines][:count]
    few = texts[: max(4, count // 30)]
    speeds: dict[str, list[float]] = {}
    with open_model(settings) as model, serving(settings) as address:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            done = sum(1 for _ in model.analyze_many(texts, lens=settings.lenses[0], mode="fast"))
            speeds.setdefault("fast, in process", []).append(done / (time.perf_counter() - began))
            for name, asked, mode, at_once in (
                (f"fast, {callers} callers", texts, "fast", callers),
                ("explain, 1 caller", few, "explain", 1),
                (f"explain, {callers} callers", texts[: count // 3], "explain", callers),
            ):
                speeds.setdefault(name, []).append(speed(address, asked, mode, at_once))
    ours, fast, one, many = (median(found) for found in speeds.values())
    for name, found in speeds.items():
        click.echo(f"{name:<22} {median(found):7.1f} texts/s   ({', '.join(f'{x:.1f}' for x in found)})")
    click.echo(f"explain, {callers} callers to one: {many / one:.2f}; fast, server to in process: {fast / ours:.2f}")
    if check and not is_enough(many / one, fast / ours):
        raise click.ClickException(
            f"The server carries too little: explain must reach {LEAST_EXPLAIN:g} and fast {LEAST_FAST:g}."
        )


def is_enough(explain: float, fast: float) -> bool:
    """Whether sharing batches pays (explain: many callers to one) and the server costs little (fast: to in process)."""
    return explain >= LEAST_EXPLAIN and fast >= LEAST_FAST


def speed(address: tuple[str, int], texts: list[str], mode: str, callers: int) -> float:
    """Texts a second when ``callers`` ask for one text after the other, each over a connection of its own."""
    free: SimpleQueue[HTTPConnection] = SimpleQueue()

    def ask(text: str) -> None:
        connection = free.get()
        body = json.dumps({"text": text, "mode": mode})
        connection.request("POST", "/analyze_text", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = response.read()
        if response.status != 200:
            raise EmotionLRMError(f"The server answered {response.status}: {said.decode()}", "Look at its messages.")
        free.put(connection)

    with ExitStack() as connections, ThreadPoolExecutor(callers) as pool:
        for _ in range(callers):
            connection = connections.enter_context(closing(HTTPConnection(*address, timeout=600)))
            connection.connect()
            free.put(connection)
        began = time.perf_counter()
        list(pool.map(ask, texts))
        return len(texts) / (time.perf_counter() - began)


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, int]]:
    """A server of its own for the same model; gives host and port."""
    given = settings.model_dump(exclude_none=True, exclude={"taxonomy", "mode"})
    options = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
    command = [sys.executable, "-m", "toolkit.cli", "serve", "--port", "0", "--max-queue", "1024", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            host, _, port = server.stdout.readline().strip().removeprefix("http://").rpartition(":")
            if not port:
                raise EmotionLRMError("The server did not start.", "Try emotion-lrm serve.")
            yield host, int(port)
        finally:
            server.terminate()


if __name__ == "__main__":
    load_test()
