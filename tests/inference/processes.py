"""The stand-in as a worker's entry, and waiting for what other processes and threads do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HERE = str(Path(__file__).parent)
ENTRY = "stand_in:main"


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def in_time(act: Callable[[], T], seconds: float = 60.0) -> T:
    """What a call returns or raises, from a thread of its own, so that one that hangs fails its test and no other."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    found = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {pid for pids in found for pid in map(int, pids) if alive(pid)}
