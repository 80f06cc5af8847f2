"""What waits in the parent for a worker: callers take turns, however much one of them has asked for.

Long texts wait apart, as a worker takes only one of them at a time.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass

from toolkit.contract.analysis import Analysis
from toolkit.inference.protocol import Request
from toolkit.inference.turns import LONG


@dataclass(eq=False, slots=True)
class Job:
    """One request with whoever waits for it.

    Attributes:
        caller: jobs of the same caller are served in order, long texts apart from the others, and callers in turn.
        begun: whether the engine has it, so that it may be what ended a worker.
        deaths: how many workers ended while they had it.
        told: hears the analysis so far of a request that streams.
        timer: what ends it when its time is over.
    """

    request: Request
    future: Future[Analysis]
    caller: Hashable
    begun: bool = False
    deaths: int = 0
    timer: TimerHandle | None = None
    told: Callable[[Analysis], object] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more: cancelled or out of time."""
        return self.future.done()

    @property
    def long(self) -> bool:
        """Whether its text is read in slices, between the others."""
        return len(self.request.text) > LONG


class FairQueue:
    """Jobs by caller; each :meth:`take` serves the caller that has waited longest. For one thread."""

    def __init__(self) -> None:
        self._short: dict[Hashable, deque[Job]] = {}
        self._long: dict[Hashable, deque[Job]] = {}

    def __len__(self) -> int:
        return sum(len(jobs) for callers in (self._short, self._long) for jobs in callers.values())

    def put(self, job: Job) -> None:
        """Let a job wait behind the others of its caller."""
        self._callers(job.long).setdefault(job.caller, deque()).append(job)

    def put_back(self, job: Job) -> None:
        """Let a job that was taken wait again, before the others of its caller."""
        self._callers(job.long).setdefault(job.caller, deque()).appendleft(job)

    def take(self, long: bool = False) -> Job | None:
        """The next job, of those with a long text or of the others, that somebody still waits for; or None."""
        callers = self._callers(long)
        while callers:
            caller, jobs = next(iter(callers.items()))
            del callers[caller]
            job = jobs.popleft()
            if jobs:
                callers[caller] = jobs  # now the last in turn
            if not job.abandoned:
                return job
        return None

    def remove(self, job: Job) -> None:
        """Forget a job, if it is here."""
        callers = self._callers(job.long)
        jobs = callers.get(job.caller)
        if jobs and job in jobs:
            jobs.remove(job)
            if not jobs:
                del callers[job.caller]

    def drain(self) -> list[Job]:
        """Take everything."""
        jobs = [job for callers in (self._short, self._long) for waiting in callers.values() for job in waiting]
        self._short.clear()
        self._long.clear()
        return jobs

    def _callers(self, long: bool) -> dict[Hashable, deque[Job]]:
        return self._long if long else self._short
