"""One worker process, kept alive: what it was doing when it died is done once more, each text alone.

Everything here runs in one thread with an asyncio loop, which also starts the process: Linux ends a process that asked
for it when the *thread* that started it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import IO, Any

from convert.errors import ConvertError
from toolkit.contract.analysis import Analysis
from toolkit.errors import EmotionLRMError, ModelError
from toolkit.inference.boot import python_command
from toolkit.inference.fair_queue import FairQueue, Job
from toolkit.inference.protocol import WorkerDiedError, analysis_from, decode, encode, error_from

log = logging.getLogger(__name__)

AHEAD = 32  # requests that lie ready in the worker while it decodes as many
STALL = 30.0  # seconds without an answer after which a worker that is stuck in an abandoned text is replaced
# Looks (pool.LOOK_EVERY) without a sign of life before a worker is replaced. Looks and not seconds: a parent that was
# itself stopped, or got no processor, must not take that for silence.
SILENT_LOOKS = 6
# The same without a step of the model while it has a text: a quarter of an hour. A step is one forward pass or a few,
# which take minutes where a large model has a slow processor, and a worker that is merely slow must be left alone.
STUCK_LOOKS = 180
GRACE = 5.0  # seconds that a worker gets to end once its output has
STARTS = 5  # times in a row that a worker may fail to start
ENTRY = "toolkit.inference.worker_process:main"

Failure = EmotionLRMError | ConvertError
Tell = Callable[[dict[str, Any]], None]


class Supervisor:
    """Starts the worker, feeds it from a queue that it may share with others, and starts it again when it dies.

    Args:
        wanted: what the worker is to load.
        queue: where requests wait.
        tell: hears what the worker says before it is ready, and ``{"failed": ...}`` when it cannot be had.
    """

    def __init__(self, wanted: Mapping[str, Any], queue: FairQueue, tell: Tell) -> None:
        self._wanted, self._queue, self._tell = dict(wanted), queue, tell
        self._running: dict[int, Job] = {}
        self._suspects: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._heard = time.monotonic()
        self._closing = self._ready = False
        self._process: Process | None = None
        self._silent_looks = self._stuck_looks = self._steps = 0
        self._replaced = ""  # why we ended the worker ourselves
        self._blameless = False
        self._folder = Path.cwd()  # a relative path still means the same when a worker is started again

    @property
    def pid(self) -> int | None:
        """The process id of the worker that runs now."""
        process = self._process  # other threads ask
        return process.pid if process else None

    @property
    def ready(self) -> bool:
        """Whether the worker has loaded its model."""
        return self._ready and not self._closing

    async def run(self) -> Failure | None:
        """Keep a worker until :meth:`close`, which returns None, or until it cannot be had any more; returns why."""
        try:
            outcome = await self._keep()
        except Exception as error:
            outcome = supervision_failed(error)
        self._ready, self._process = False, None
        if self._closing:
            return None
        self._bury(str(outcome))
        self._tell({"failed": outcome})
        return outcome

    async def _keep(self) -> Failure | None:
        failures = 0
        outcome: Failure | None = None
        while not self._closing and failures < STARTS:
            self._ready = False
            outcome = await self._life()
            if self._closing:
                break
            failures = 0 if self._ready else failures + 1
            self._bury(str(outcome))
            if not isinstance(outcome, WorkerDiedError):
                break  # it said itself why it cannot start: another attempt would say the same
            await asyncio.sleep(0.1 * failures)
        return outcome

    def close(self) -> None:
        """Let the worker go; whoever still waits must be told by the owner."""
        self._closing = True
        if self._process is not None:
            _kill(self._process)

    def wake(self) -> None:
        """Look at the queue again."""
        self._changed.set()

    def abandon(self, job: Job) -> None:
        """Nobody waits for a job any more: keep the worker from beginning it, and from reading on in a long text."""
        pipe = self._process.stdin if self._process else None
        stoppable = not job.begun or job.long
        if job.request.number in self._running and stoppable and pipe and not pipe.is_closing():
            pipe.write(encode({"drop": job.request.number}))

    def look(self) -> None:
        """Replace a worker that hangs, is stuck, or answers nothing for long while it holds an abandoned text."""
        self._silent_looks += 1
        self._stuck_looks += 1
        begun = [job for job in self._running.values() if job.begun]
        if self._silent_looks > SILENT_LOOKS:
            self._replace("it hung", blameless=False)
        elif begun and self._stuck_looks > STUCK_LOOKS:
            self._replace("it was stuck in native code", blameless=False)
        elif any(job.abandoned for job in begun) and time.monotonic() - self._heard > STALL:
            self._replace("it was stuck in a text that nobody waited for", blameless=True)

    def _replace(self, why: str, blameless: bool) -> None:
        if self._process is not None:
            self._replaced, self._blameless = why, blameless
            _kill(self._process)

    def drain(self) -> list[Job]:
        """Take every job that is here."""
        jobs = [*self._running.values(), *self._suspects]
        self._running.clear()
        self._suspects.clear()
        return jobs

    # One life of the worker

    async def _life(self) -> Failure:
        """Start a worker and serve it until it ends; returns how it ended."""
        try:
            stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        except OSError as error:
            return WorkerDiedError(f"No temporary file can be made: {error}.", "Free some space, or set TMPDIR.")
        with stderr:
            try:
                process = await self._start(stderr)
            except OSError as error:
                return WorkerDiedError(f"No worker process can be started: {error}.", "Close other programs.")
            failed, code = await self._serve(process)
            how = f"was ended because {self._replaced}" if self._replaced else f"ended with {_cause(code, stderr)}"
        return failed or WorkerDiedError(f"The worker process {how}.", _REPORT)

    async def _start(self, stderr: IO[bytes]) -> Process:
        environ = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # an abort would call a debugger first
        process = await asyncio.create_subprocess_exec(
            *python_command(ENTRY),
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            env=environ,
            cwd=self._folder,
            limit=1 << 24,
        )
        self._process, self._replaced = process, ""
        self._silent_looks = self._stuck_looks = self._steps = 0
        if self._closing:
            self.close()
        return process

    async def _serve(self, process: Process) -> tuple[Failure | None, int]:
        """Feed a worker until it ends; returns the failure that it reported, if it did, and its exit code."""
        failed = None
        feeding = asyncio.create_task(self._feed(process))
        feeding.add_done_callback(lambda done: None if done.cancelled() else _kill(process))  # it would wait for ever
        try:
            failed = await self._listen(process)
        except Exception as error:  # not our protocol: replace it
            log.warning("A worker process spoke nonsense: %r", error)
            _kill(process)
        finally:
            feeding.cancel()
            code = await _end(process)
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await feeding
        return failed, code

    async def _listen(self, process: Process) -> Failure | None:
        """Take messages until the worker's output ends; returns the failure that it reported, if it did."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # it died in the middle of a word
            self._silent_looks = 0
            message = decode(line)
            if "alive" in message:
                if message["alive"] != self._steps:
                    self._steps, self._stuck_looks = message["alive"], 0
                continue
            self._heard, self._stuck_looks = time.monotonic(), 0
            if "failed" in message:
                return error_from(message["failed"])
            if "partial" in message:
                self._pass_on(message)
            elif "id" in message:
                self._settle(message)
            elif "begun" in message:
                for job in filter(None, map(self._running.get, message["begun"])):  # one may have been dropped just now
                    job.begun = True
            else:
                self._ready |= "ready" in message
                self._tell(message)
            self._changed.set()
        return None

    def _pass_on(self, message: Mapping[str, Any]) -> None:
        job = self._running.get(message["id"])  # None where it was dropped meanwhile
        if job is not None and job.told is not None and not job.abandoned:
            job.told(analysis_from(message["partial"], job.request.text))

    def _settle(self, message: Mapping[str, Any]) -> None:
        job = self._running[message["id"]]
        if "analysis" in message:
            succeed(job.future, analysis_from(message["analysis"], job.request.text))
        elif "error" in message:
            fail(job.future, error_from(message["error"]))
        del self._running[message["id"]]  # only now: what makes no sense is no answer

    async def _feed(self, process: Process) -> None:
        """Send the worker requests, a bounded number ahead of what its engine has begun."""
        assert process.stdin is not None
        process.stdin.write(encode({"load": {**self._wanted, "parent": os.getpid()}}))
        while True:
            job = self._next() if self._ready else None
            if job is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._running[job.request.number] = job
            process.stdin.write(encode(job.request.to_message()))
            await process.stdin.drain()

    def _next(self) -> Job | None:
        """A job to send now; one that may have ended a worker is sent only when nothing else runs."""
        while self._suspects and self._suspects[0].abandoned:
            self._suspects.popleft()
        if self._suspects:
            return None if self._running else self._suspects.popleft()
        running = self._running.values()
        if any(job.deaths for job in running):
            return None
        found = None if any(job.long for job in running) else self._queue.take(long=True)
        if found is None and sum(not job.begun and not job.long for job in running) < AHEAD:
            found = self._queue.take()
        if found is not None and found.deaths:  # it ended a worker that is gone for good
            self._suspects.append(found)
            return self._next()
        return found

    def _bury(self, cause: str) -> None:
        """Blame the worker's end on what its engine had; the rest waits again as if nothing had happened."""
        jobs, self._running = list(self._running.values()), {}
        blamed = [] if self._blameless else [job for job in jobs if job.begun] or jobs
        self._blameless = False
        if jobs:
            log.info("%s %d texts are read again.", cause, len(jobs))
        for job in reversed(jobs):
            job.begun = False
            if job not in blamed:
                self._queue.put_back(job)
            elif job.deaths:
                fail(job.future, WorkerDiedError(f"The text ended the worker process twice. {cause}", _LEAVE_OUT))
            else:
                job.deaths = 1
                self._suspects.appendleft(job)


def supervision_failed(error: BaseException) -> Failure:
    """What nobody expected here, as callers are to hear of it."""
    log.debug("The supervision of a worker failed.", exc_info=error)
    failure = ModelError(
        f"The worker's supervision failed with {type(error).__name__}: {error}",
        "Run it again with --debug, and report the traceback.",
    )
    failure.__cause__ = error
    return failure


_REPORT = "Try again; if it happens again, run: emotion-lrm doctor"
_LEAVE_OUT = "Leave this text out, and report it with the text."


async def _end(process: Process) -> int:
    """Wait until a process is gone whose output has ended; returns its exit code."""
    assert process.stdin is not None
    try:
        code = await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:
        _kill(process)
        code = await process.wait()
    process.stdin.close()
    with contextlib.suppress(OSError):
        await process.stdin.wait_closed()
    return code


def _kill(process: Process) -> None:
    # Not process.kill(): it looks whether the process has ended, and then asyncio never learns of its exit code.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _cause(code: int, stderr: IO[bytes]) -> str:
    """A signal's name or an exit code, and the last thing that was printed."""
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - 4096))
    said = [line.strip() for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
    try:
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        name = f"signal {-code}"
    return f"{name}: {said[-1][:300]}" if said else name


def succeed(future: Future[Analysis], analysis: Analysis) -> None:
    """Give a result to a future that may just have been cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(analysis)


def fail(future: Future[Analysis], error: Exception) -> None:
    """Give a failure to a future that may just have been cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
