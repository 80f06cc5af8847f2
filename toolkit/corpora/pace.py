"""How fast and for how many tokens a teacher may be asked, kept for all threads together."""

from __future__ import annotations

import threading
import time

from toolkit.corpora.teachers import BudgetSpentError


class Pace:
    """Spreads requests evenly over the minute, and holds all of them back when the server asks for it.

    Args:
        per_minute: the most requests begun in a minute; None sets no limit.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._gap
        self.sleep(start - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Let no request begin before so many seconds from now."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until :meth:`stop`."""
        if seconds > 0:
            self._stop.wait(seconds)

    def stop(self) -> None:
        """Wake whoever waits."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether no further request should begin."""
        return self._stop.is_set()


class Budget:
    """Counts tokens; what is under way counts as much as it is thought to cost at the most.

    Args:
        limit: the most tokens; None sets no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.spent = limit, 0
        self._reserved = 0
        self._lock = threading.Lock()

    def reserve(self, tokens: int) -> None:
        """Set ``tokens`` aside for a request.

        Raises:
            BudgetSpentError: where that could pass the limit.
        """
        with self._lock:
            if self.limit is not None and self.spent + self._reserved + tokens > self.limit:
                raise BudgetSpentError(
                    f"The budget of {self.limit:,} tokens is spent ({self.spent:,} used).",
                    "Run the same command with a larger --max-tokens-total; answers are kept.",
                )
            self._reserved += tokens

    def settle(self, reserved: int, spent: int) -> None:
        """Give back what was set aside and count what it cost in truth."""
        with self._lock:
            self._reserved -= reserved
            self.spent += spent
