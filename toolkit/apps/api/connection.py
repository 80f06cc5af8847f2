"""One caller's connection, which is cut where the caller takes too long."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit.apps.api.gate import Limits


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with limits that it lacks: on connections, and on the time of a caller.

    uvicorn's own timer begins after an answer and ends with the next byte; a head that never ends, or an answer that is
    never taken, would hold a connection, and all that belongs to it, for ever. A body's time is the gate's business.
    """

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a connection too many ends at once."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that writing pauses as soon as the system takes no more
        if len(self.connections) > self._limits.requests + self._limits.spare:
            transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._stop()

    def handle_events(self) -> None:
        """Look at what has come."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait until the caller takes what was written."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on: the caller has taken it."""
        super().resume_writing()
        self._stop()
        self._watch()

    def _watch(self) -> None:
        """Let the caller's time run while it is the caller's turn, and stop it when it is ours."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.flow.write_paused:
            self._stop()
        elif self._timer is None:
            # Not close(): that would wait until everything is taken.
            self._timer = self.loop.call_later(self._limits.caller_seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
