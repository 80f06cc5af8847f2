"""What stands before the application: keys, sizes and times are checked here, and work ends when its caller is gone."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.apps.api.refusals import BUSY, NO_KEY, NOT_JSON_TYPE, SLOW, TOO_LARGE, Refusal

OPEN = {"/health", "/ready", "/docs", "/openapi.json"}  # these need no key: they tell nothing of anybody's texts
DISCARDED = 1 << 26  # bytes of a body that turned out to be too large
# What is read of a request that its head refuses: without some of it, its sender would not see the answer.
REFUSED_BYTES, REFUSED_SECONDS, MOST_REFUSED = 1 << 20, 1.0, 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost.

    Attributes:
        seconds: until one text is answered.
        requests: that may be open at once.
        body_bytes: of a request's body.
        caller_seconds: that a caller may take over the head of a request, over its body, and over any piece of the
            answer.
        spare: connections that may be open beside those of ``requests``.
        finish_seconds: more than one text may take, in which open requests finish when the server is asked to end.
    """

    seconds: float = 60.0
    requests: int = 256
    body_bytes: int = 1 << 22
    caller_seconds: float = 20.0
    spare: int = 512
    finish_seconds: float = 5.0


class CallerGoneError(Exception):
    """The caller went away before its body had arrived."""


class Gate:
    """Hands the application whole bodies of good requests; an ASGI application itself.

    Args:
        key: what a caller must show, or None.
    """

    def __init__(self, app: ASGIApp, key: bytes | None, limits: Limits) -> None:
        self._app, self._key, self._limits = app, key, limits
        self._open = self._refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or let the application answer it."""
        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await self._turn_away(refusal, scope, receive, send)
            elif scope["method"] == "POST":
                await self._let_in(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except (CallerGoneError, asyncio.CancelledError):
            pass  # nobody listens any more, or the server ends and its time for open requests is over

    async def _turn_away(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused += 1
        try:
            if self._refused <= MOST_REFUSED:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFUSED_SECONDS):
                        await _read(receive, 0, REFUSED_BYTES)
            await refusal.response()(scope, receive, send)
        finally:
            self._refused -= 1

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._open += 1
        try:
            body = await self._body(receive)
            if isinstance(body, Refusal):
                await body.response()(scope, receive, send)
            else:
                await _while_called(self._app, scope, body, receive, send)
        finally:
            self._open -= 1

    def _refusal(self, scope: Scope) -> Refusal | None:
        """What the head of a request says against it."""
        headers = Headers(scope=scope)
        if self._key is not None and scope["path"] not in OPEN and not self._is_known(headers.get("authorization", "")):
            return NO_KEY
        if scope["method"] != "POST":
            return None
        if self._open >= self._limits.requests:
            return BUSY
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return None if kind == "application/json" else NOT_JSON_TYPE

    def _is_known(self, authorization: str) -> bool:
        scheme, _, shown = authorization.partition(" ")
        assert self._key is not None
        return hmac.compare_digest(shown.strip().encode("latin-1"), self._key) and scheme.lower() == "bearer"

    async def _body(self, receive: Receive) -> bytes | Refusal:
        """The whole body, or why there is none."""
        try:
            async with asyncio.timeout(self._limits.caller_seconds):
                body = await _read(receive, self._limits.body_bytes, DISCARDED)
        except TimeoutError:
            return SLOW
        return TOO_LARGE if body is None else body


async def _read(receive: Receive, most: int, discarded: int) -> bytes | None:
    """A body of at most ``most`` bytes, counted as they come; of a larger one, so many are read and none kept."""
    body, size, more = bytearray(), 0, True
    while more and size <= discarded:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= most:
            body += chunk
        else:
            body.clear()
        more = message.get("more_body", False)
    return bytes(body) if size <= most else None


async def _while_called(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run the application on a body; cancel it when the caller goes away."""
    gone = asyncio.ensure_future(_disconnect(receive))
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await asyncio.shield(gone)

    work = asyncio.ensure_future(_run(app, scope, replayed, send))
    try:
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        work.cancel()  # where the answer is complete this is too late, and changes nothing
        done, _ = await asyncio.gather(work, gone, return_exceptions=True)
    if isinstance(done, Exception):
        raise done


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
