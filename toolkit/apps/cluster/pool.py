"""Slices through a pool of Ray actors: the only place that speaks to Ray."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convert.errors import ConvertError
from toolkit.apps.batch import wish_of
from toolkit.apps.cluster.parts import write_part
from toolkit.apps.cluster.sources import Place, Slice, Source, measure
from toolkit.apps.escape import json_line
from toolkit.apps.predictor import Predictor
from toolkit.apps.tables import Table
from toolkit.apps.tally import Tally
from toolkit.errors import EmotionLRMError, ModelError, UsageError
from toolkit.inference.protocol import error_from, error_message
from toolkit.inference.tuning import available_threads

_SMALL_STORE = 128 << 20  # bytes; what goes through the store are descriptions of slices, and rows that were read
_PATIENCE = 10.0  # seconds for a cluster to take a connection
_MEASURING = 64  # files whose rows are counted in one task
SEE_TO_IT = "See that emotion-lrm is installed on its machines and that they can read the input; then --resume."


class WorkersLostError(ModelError):
    """A pool of actors ended before its work did."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every actor is told once: the model to load, the input, and the folder that it writes parts to, if any."""

    predictor: Predictor
    sources: Sequence[Source]
    tables: Sequence[Table]
    folder: Path | None
    form: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A slice that was read: its counts, and its rows as JSON lines unless the actor wrote them itself."""

    number: int
    tally: Tally
    lines: bytes


class SliceReader:
    """The class for ``map_batches``: each actor loads the model once and reads slice after slice."""

    def __init__(self, work: Work) -> None:
        self._work, self._place = work, Place(work.sources, work.tables)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The answers to slices. A failure comes back as one: Ray would take a crash for a lost machine."""
        told = batch["slice"].tolist()
        answers = [self._answer(Slice(**json.loads(one))) for one in told]
        return {name: [answer[name] for answer in answers] for name in ("number", "tally", "lines", "failed")}

    def _answer(self, wanted: Slice) -> dict[str, Any]:
        work, tally, lines = self._work, Tally(), []
        try:
            for record in work.predictor.records(self._place.rows(wanted)):
                lines.append(json_line(record))
                tally.add(record)
            whole = b"".join(lines)
            if work.folder is not None:
                write_part(work.folder, wanted.number, work.form, whole, wish_of(work.predictor.settings))
                whole = b""
        except Exception as error:
            return {"number": wanted.number, "tally": "", "lines": b"", "failed": json.dumps(error_message(error))}
        return {"number": wanted.number, "tally": json.dumps(tally.to_dict()), "lines": whole, "failed": ""}


def import_ray() -> Any:
    """``ray``, told before it is imported to report nothing to anybody.

    Raises:
        UsageError: where it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # native code writes to our standard error
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its coming default, else it warns
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("The engine ray needs the package ray.", 'pip install "emotion-lrm[ray]"') from None
    return ray


@contextmanager
def cluster(address: str | None, processors: int | None) -> Iterator[Any]:
    """Ray, connected: to ``address``, else to ``RAY_ADDRESS``, else to a cluster of this machine that ends with us.

    A caller that is connected already stays so.

    Args:
        processors: how many a cluster of this machine may use; None is all.

    Raises:
        UsageError: where no cluster answers at the address.
        EmotionLRMError: where none starts on this machine.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with _hushed():
            if address == "local":
                _start(ray, processors or available_threads())
            else:
                _knock(address)
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises that, and of every other kind
        if address == "local":
            raise EmotionLRMError(f"Ray did not start: {_first_line(error)}", "Try again, or --engine local.") from None
        told = f"No Ray cluster answers at {address}: {_first_line(error)}"
        raise UsageError(told, "Start one: ray start --head") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries an address at which nobody listens for minutes.

    Raises:
        OSError: where nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _start(ray: Any, processors: int) -> None:
    """Start a cluster of this machine; nothing of it listens on the network."""
    # What Ray does by itself on macOS and Windows. Elsewhere it takes even the address 127.0.0.1 for the public one.
    constants = ray._private.ray_constants
    kept, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(
            "local",
            num_cpus=processors,
            object_store_memory=_SMALL_STORE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:
        constants.ENABLE_RAY_CLUSTER = kept


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what native code writes to the standard error: the level at which it logs, at every start."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def processors_of(ray: Any) -> int:
    """How many processors the cluster has now."""
    return int(ray.cluster_resources().get("CPU", 0))


def measure_all(ray: Any, sources: Sequence[Source], like: Table) -> list[tuple[Table, int]]:
    """How every file is read and its number of rows, found on the cluster.

    Raises:
        DataError, FileError: for the first file that cannot be read, before any work is done.
        WorkersLostError: where the machines cannot do even that.
    """
    chunks = [sources[start : start + _MEASURING] for start in range(0, len(sources), _MEASURING)]
    try:
        found = ray.get([ray.remote(_measured).remote(chunk, like) for chunk in chunks])
    except ray.exceptions.RayError as error:
        raise WorkersLostError(f"The cluster cannot count the rows: {_last_line(error)}", SEE_TO_IT) from error
    for told in found:
        if isinstance(told, dict):
            raise error_from(told)
    return [one for told in found for one in told]


def _measured(sources: Sequence[Source], like: Table) -> list[tuple[Table, int]] | dict[str, str]:
    try:
        return [measure(source, like) for source in sources]
    except (EmotionLRMError, ConvertError) as error:
        return error_message(error)


def read_slices(ray: Any, work: Work, slices: Sequence[Slice], workers: int) -> Iterator[Answer]:
    """The answers to slices, as they come. What was on a machine that went away is simply not among them.

    Raises:
        EmotionLRMError, ConvertError: what an actor could not get around: no model, a file that changed.
        WorkersLostError: where Ray cannot go on with this pool; another one may.
    """
    try:
        for batch in _answers(ray, work, slices, workers).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for answer in batch.to_pylist():
                if answer["failed"]:
                    raise error_from(json.loads(answer["failed"]))
                yield Answer(answer["number"], Tally.from_dict(json.loads(answer["tally"])), answer["lines"])
    except ray.exceptions.RayError as error:
        raise WorkersLostError(f"Ray lost its workers: {_last_line(error)}", SEE_TO_IT) from error


def _answers(ray: Any, work: Work, slices: Sequence[Slice], workers: int) -> Any:
    """The dataset of the answers: a pool of actors, none of which waits for another to come back.

    By itself Ray would do again what a lost actor had, in that actor, once it is back; where its machine stays away,
    that is never. So nothing is tried again here, and whoever asks sees what is missing.
    """
    context = ray.data.DataContext.get_current().copy()  # the caller's own stays as it is
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    told = [{"slice": json.dumps(asdict(one))} for one in slices]
    size = min(workers, len(slices))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size, max_tasks_in_flight_per_actor=2)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # the only way to say so up to Ray 2.63
        return ray.data.from_items(told, override_num_blocks=len(told)).map_batches(
            SliceReader,
            fn_constructor_args=(work,),
            batch_size=None,
            compute=pool,
            num_cpus=work.predictor.threads,
            max_restarts=-1,
            max_task_retries=0,
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: BaseException) -> str:
    """Of an error that holds a traceback of another machine, what went wrong there."""
    return str(error).strip().rpartition("\n")[2]
