"""`emotion-lrm bench`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolkit.errors import UsageError
from toolkit.settings import Progress, Settings, some_model_options

if TYPE_CHECKING:
    from toolkit.benchmark.file_types import Tried
    from toolkit.benchmark.growth import Growth

_JUDGED = 1000  # labelled texts that a file type is judged by


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of each; medians count.")
@click.option(
    "--texts", type=click.IntRange(8, 300), default=300, show_default=True, help="Texts a turn; slower ways read fewer."
)
@click.option("--types", metavar="T,T", help="File types of the shipped model, such as bf16,q8_0.")
@click.option("--tune", is_flag=True, help="Find and keep the file type and the settings that suit this machine.")
@click.option(
    "--growth", is_flag=True, help="Read up to 10,000 texts, explain up to 1,000, read texts of up to 20,000 words."
)
@click.option("--no-server", is_flag=True, help="Leave llama-server out, even if it is on the PATH.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG", help="Draw the figures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@some_model_options("model", "threads")
def bench(
    rounds: int,
    texts: int,
    types: str | None,
    tune: bool,
    growth: bool,
    no_server: bool,
    plot: Path | None,
    as_json: bool,
    settings: Settings,
) -> None:
    """Measure the speed of this machine against the ordinary way.

    The ordinary way is llama-cpp-python's own completion, held to the same contract by a JSON schema, on the same
    file; where a llama-server is on the PATH it is measured too. All take turns, so that a busy machine meets them
    alike. With --tune or --growth only that is done. What --tune finds is used from then on where nothing else is
    asked for: the fastest file type of the shipped model that loses nothing (among --types), threads, tokens a pass
    and sequences.

    \b
    emotion-lrm bench
    emotion-lrm bench --rounds 5 --types bf16,q8_0 --plot bench.png
    emotion-lrm bench --tune
    """
    from toolkit.inference.abi import check_abi

    _refuse_useless(tune, growth)
    check_abi()
    if plot is not None:
        from toolkit.corpora.figures import require_matplotlib

        require_matplotlib()
    if tune:
        _tune(types, settings, as_json)
        return
    paths = _files(types, settings)
    with Progress() as progress:
        if growth:
            _grow(paths[0], settings.threads, as_json, progress)
        else:
            _measure(paths, (rounds, texts, not no_server), settings.threads, plot, as_json, progress)


def _refuse_useless(tune: bool, growth: bool) -> None:
    """Refuse options that would change nothing beside ``--tune`` or ``--growth``."""
    useless = [*(["rounds", "texts", "no_server", "plot"] if tune or growth else []), *(["threads"] if tune else [])]
    given = {name for name in useless if _is_given(name)} | ({"growth"} if tune and growth else set())
    if given:
        named = " or ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise UsageError(f"--{'tune' if tune else 'growth'} takes no {named}.", "Run them one after the other.")


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _files(types: str | None, settings: Settings) -> list[Path]:
    """The model of the settings, in each file type where some are asked for; built first where they are missing."""
    from toolkit.inference.store import ensure, licence_remark

    shipped = _shipped_name(types, settings)
    names: list[str | None] = [f"{shipped}-{kind}" for kind in _kinds(types)]
    told, remark = "Building the model; this happens once and takes about a minute.", licence_remark(settings.model)
    with Progress(told, remark) as progress:
        return [ensure(name, progress) for name in names or [settings.model]]


def _shipped_name(types: str | None, settings: Settings) -> str | None:
    """The shipped model whose file type is open; None where a file, or a name with its type, was asked for.

    Raises:
        UsageError: where ``types`` are to choose from all the same.
    """
    from toolkit.inference.store import load_shipped

    shipped = load_shipped()
    name = settings.model or shipped.default
    if name in shipped.models:
        return name
    if _kinds(types):
        raise UsageError(f"{name} has one file type; there is nothing to choose for --types.", "Leave out one of them.")
    return None


def _kinds(types: str | None) -> list[str]:
    return [kind.strip().lower() for kind in (types or "").split(",") if kind.strip()]


def _measure(
    paths: list[Path],
    amount: tuple[int, int, bool],
    threads: int | None,
    plot: Path | None,
    as_json: bool,
    progress: Progress,
) -> None:
    from toolkit.benchmark.machine import describe_machine
    from toolkit.benchmark.measure import Plan, bench_texts, measure, measure_startup
    from toolkit.benchmark.show import draw_bench, print_bench

    rounds, texts, server = amount
    plan = Plan(rounds, texts, threads, server)
    found = [measure(path, bench_texts(), plan, progress) for path in paths]
    startup, machine = measure_startup(paths[0]), describe_machine()
    if plot is not None:
        draw_bench(machine, found, plot)
    if as_json:
        told = {"machine": machine, **asdict(plan), **found[0].to_dict(), "startup": startup}
        told["file_types"] = [model.to_dict() for model in found]
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        print_bench(machine, found, startup, sys.stdout)


def _tune(types: str | None, settings: Settings, as_json: bool) -> None:
    from convert.header import check_header
    from toolkit.benchmark.measure import bench_texts
    from toolkit.benchmark.show import print_file_types, print_tuning
    from toolkit.benchmark.tune import tune
    from toolkit.inference.tuning import keep_tuning

    tried = _tune_file_type(types, settings)
    path = _files(None, settings)[0]
    with Progress() as progress:
        tuning, rate = tune(path, bench_texts(), progress)
    kept = keep_tuning(check_header(path).metadata, tuning, {"model": path.stem, "texts_per_second": rate})
    if as_json:
        told: dict[str, Any] = {"model": path.stem, "tuning": asdict(tuning), "texts_per_second": rate}
        told["file_types"] = [one.to_dict() for one in tried]
        click.echo(json.dumps({**told, "file": str(kept) if kept else None}))
        return
    if tried:
        print_file_types(tried, sys.stdout)
    print_tuning(path.stem, tuning, rate, kept, sys.stdout)


def _tune_file_type(types: str | None, settings: Settings) -> list[Tried]:
    """Find and keep the file type of a shipped model; nothing where a file, or a name with its type, was asked for."""
    from convert.file_types import default_file_type
    from toolkit.apps.quality import labelled_rows
    from toolkit.assets import asset
    from toolkit.benchmark.file_types import CANDIDATES, choose, try_file_types
    from toolkit.benchmark.measure import bench_texts
    from toolkit.inference.store import ensure, licence_remark, load_shipped, models_folder
    from toolkit.inference.tuning import keep_file_type

    name = _shipped_name(types, settings)
    if name is None:
        return []
    kinds = _kinds(types) or [kind.lower() for kind in CANDIDATES]
    there, built = set(models_folder().glob("*.gguf")), dict[str, Path]()
    try:
        with Progress("Building the model in several file types.", licence_remark(name)) as progress:
            for kind in ("bf16", *kinds):
                built[kind.upper()] = ensure(f"{name}-{kind}", progress)
        paths = {kind.upper(): built[kind.upper()] for kind in kinds}
        rows, judged_by = labelled_rows(limit=_JUDGED)
        with Progress() as progress:
            tried = try_file_types(paths, built["BF16"], rows, bench_texts(), progress)
        best = choose(tried, default_file_type())
        told = {"model": name, "texts_per_second": best.texts_per_second, "judged_by": judged_by}
        keep_file_type(asset("models", "adapters", load_shipped().models[name].adapter), best.file_type, told)
        there.add(paths[best.file_type])
    finally:
        for path in set(built.values()) - there:
            path.unlink(missing_ok=True)
    return tried


def _grow(path: Path, threads: int | None, as_json: bool, progress: Progress) -> None:
    from toolkit.benchmark.growth import measure_growth
    from toolkit.benchmark.measure import bench_texts
    from toolkit.benchmark.show import print_growth
    from toolkit.inference.engine import Engine

    engine = Engine(path, threads=threads)
    try:
        found: list[Growth] = measure_growth(engine, bench_texts(), progress=progress)
    finally:
        engine.close()
    if as_json:
        click.echo(json.dumps({"model": path.stem, "growth": [asdict(growth) for growth in found]}))
    else:
        print_growth(found, sys.stdout)
