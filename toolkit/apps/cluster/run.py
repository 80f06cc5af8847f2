"""The batch command past one machine: the same rows, read by the actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import FileError
from toolkit.apps.batch import SOME_ROWS_FAILED, wish_of
from toolkit.apps.cluster.parts import Parts, check_folder, part_path, write_part
from toolkit.apps.cluster.pool import (
    SEE_TO_IT,
    Answer,
    Work,
    WorkersLostError,
    cluster,
    import_ray,
    measure_all,
    processors_of,
    read_slices,
)
from toolkit.apps.cluster.sources import Slice, Source, cut, find_sources, open_sources, part_size
from toolkit.apps.journal import alone, check_destination, paths
from toolkit.apps.predictor import Predictor
from toolkit.apps.results import output_form
from toolkit.apps.tables import Table, import_parquet
from toolkit.apps.tally import Tally, Watch, summary
from toolkit.errors import UsageError
from toolkit.settings import Progress, Settings, building_notice, is_quiet, wanted_model

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go: a file, or a folder of parts that the actors write themselves.

    Attributes:
        folder: where the parts lie, for a file until it is joined from them.
        file: the file, or None.
        form: of the parts.
    """

    folder: Path
    file: Path | None
    form: str


def target_of(output: str) -> Target:
    """A path that ends with a slash is a folder of parts: ``X.parquet/`` of Parquet, any other of JSON lines.

    Raises:
        UsageError: for a file whose name does not say its form, and for an address.
    """
    if "://" in output:
        raise UsageError("OUTPUT is no path.", "Write to a folder that all machines share, and copy it from there.")
    path = Path(output)
    if output.endswith(("/", "\\")):
        form = "parquet" if path.suffix.lower() == ".parquet" else "jsonl"
        if form == "parquet":
            import_parquet()
        return Target(path.absolute(), None, form)
    output_form(path)
    return Target(path.absolute().with_name(f"{path.name}.parts"), path, "jsonl")


def on_ray(asked: Mapping[str, Any], settings: Settings, say: Say) -> int:
    """The command ``emotion-lrm batch --engine ray`` with its parameters by name; returns its exit code.

    Raises:
        UsageError: for what only the engine local can do; else as :func:`batch_on_ray`.
    """
    if asked["engine"] != "ray":
        raise UsageError("--address is for the engine ray.", "Add --engine ray, or leave it out.")
    if asked["report"] or asked["date_column"]:
        raise UsageError("The engine ray writes no report.", "Leave --report and --date-column out.")
    if asked["source"] == "-":
        raise UsageError("A cluster reads no standard input.", "Give a file, a folder or a glob in quotation marks.")
    alike = ("source", "output", "address", "workers", "resume", "overwrite")
    reading = ("form", "encoding", "delimiter", "header", "text_column", "id_column")
    told = {name: asked[name] for name in alike + reading}
    tally = batch_on_ray(settings=settings, show=not is_quiet(), say=say, **told)
    return SOME_ROWS_FAILED if tally.status["error"] else 0


def batch_on_ray(
    source: str,
    output: str,
    settings: Settings,
    *,
    address: str | None = None,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    rows_a_part: int | None = None,
    show: bool = False,
    say: Say = lambda *_: None,
    **reading: Any,
) -> Tally:
    """Read every row of the input on a Ray cluster; returns the counts over all its rows.

    Args:
        source: a file, a folder, a glob, or the address of one in an object store.
        output: a file, or a folder with a slash at its end.
        workers: how many actors; None is as many as the cluster has processors for.
        rows_a_part: how many rows are read, written and, after an interruption, resumed together.
        reading: how to read the files, as :func:`~toolkit.apps.tables.open_table` takes it.

    Raises:
        UsageError: no ray, no cluster, or output that is there already.
        DataError: damaged input, or input that changed since the run that is resumed.
        ModelError: no model, or a cluster on which nothing can be read.
    """
    wish = wish_of(settings)
    target, threads, began = target_of(output), settings.threads or 1, time.monotonic()
    _check(target, resume, overwrite)
    import_ray()
    sources = find_sources(source)
    table = open_sources(sources, **reading)
    say(*table.notes)
    predictor = portable(settings, threads)
    parts = Parts(target.folder, target.form)
    with alone(target.folder):
        with cluster(address, workers and workers * threads) as ray:
            workers = workers or max(1, processors_of(ray) // threads)
            tables, rows = zip(*measure_all(ray, sources, table), strict=True)
            identity = _identity(sources, table, predictor, target)
            size = parts.begin(identity, rows_a_part or part_size(sum(rows), workers), resume)
            if parts.done:
                say(f"Resuming after {parts.total.rows:,} of {sum(rows):,} rows.")
            work = Work(predictor, sources, tables, None if target.file else target.folder, target.form)
            with _kept(parts, say), Watch(sum(rows), parts.total.rows) if show else contextlib.nullcontext() as watch:
                _read(ray, work, parts, cut(rows, size), workers, watch, say)
        if target.file:
            parts.join(target.file, output_form(target.file), wish)
    say(*summary(parts.total, time.monotonic() - began))
    return parts.total


def _read(
    ray: Any, work: Work, parts: Parts, slices: Sequence[Slice], workers: int, watch: Watch | None, say: Say
) -> None:
    """Read what is missing, in rounds: what a lost machine had in hand comes again in the next one."""
    lost, again = WorkersLostError("No worker of the cluster finished a part.", SEE_TO_IT), False
    while waiting := [one for one in slices if one.number not in parts.done]:
        before = len(parts.done)
        if again:
            say(f"Parts that were lost with their workers and are read again: {len(waiting):,}.")
        try:
            for answer in read_slices(ray, work, waiting, workers):
                _keep(answer, work, parts)
                if watch is not None:
                    watch(parts.total)
        except WorkersLostError as error:
            lost = error
        if len(parts.done) == before:
            raise lost
        again = True


def _keep(answer: Answer, work: Work, parts: Parts) -> None:
    """Note a part, once it lies in its place; one that comes again changes nothing."""
    if answer.number in parts.done:
        return
    if work.folder is None:
        write_part(parts.folder, answer.number, parts.form, answer.lines, wish_of(work.predictor.settings))
    elif not part_path(parts.folder, answer.number, parts.form).is_file():
        raise FileError(
            f"A worker wrote a part that is not to be seen here: {part_path(parts.folder, answer.number, parts.form)}",
            "Give a folder that all machines share, or name a single file.",
        )
    parts.note(answer.number, answer.tally)


@contextlib.contextmanager
def _kept(parts: Parts, say: Say) -> Iterator[None]:
    try:
        yield
    except BaseException:
        say(f"{len(parts.done):,} finished parts are kept; --resume continues from there.")
        raise


def _check(target: Target, resume: bool, overwrite: bool) -> None:
    """Refuse early what would be refused after the work."""
    check_folder(target.folder, resume, overwrite)
    if target.file is None:
        return
    check_destination(target.file, resume, overwrite)
    for left in paths(target.file):
        if left.exists() and not overwrite:
            raise UsageError(
                f"A run for {target.file} was interrupted with the engine local.",
                "Resume it with --engine local, or --overwrite starts afresh.",
            )
        left.unlink(missing_ok=True)


def portable(settings: Settings, threads: int) -> Predictor:
    """The predictor for other machines, which are told a model's name or the path of its file, never the weights.

    The file type is settled here, so that no machine takes another one than the rest. The model is built if need be.
    """
    from toolkit.inference.store import ensure

    wanted = wanted_model(settings)
    with Progress(*building_notice(settings)) as progress:
        path = ensure(wanted, progress)
    is_file = wanted is not None and Path(wanted).is_file()
    adapter = str(Path(settings.adapter).absolute()) if settings.adapter else None
    told = {"model": str(path.absolute()) if is_file else path.stem, "threads": threads, "adapter": adapter}
    return Predictor(**settings.model_dump() | told)


def _identity(sources: Sequence[Source], table: Table, predictor: Predictor, target: Target) -> dict[str, Any]:
    """What a run must have in common with the one that it continues; files by name, size and time of change."""
    told = json.dumps([(source.place, source.size, source.changed) for source in sources])
    asked = {"lens": predictor.lens, "taxonomy": predictor.taxonomy, "mode": predictor.mode}
    model = {"model": Path(predictor.model or "").stem, "adapter": predictor.adapter, "output": target.form}
    return {"input": hashlib.sha256(told.encode()).hexdigest(), **table.identity(), **asked, **model}
