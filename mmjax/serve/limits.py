"""Limits on requests: how many at a time, of all and of one client, and their size and duration.

A request takes one of the places only when its whole body has arrived, so that slow uploads keep
nobody out; they are held in memory, within a limit of all of them together.
"""

import asyncio
import collections
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from mmjax.process import runtime

REQUESTS = 64  # in progress, with their bodies
CLIENT = 32  # requests of one client, those that are still arriving included
BYTES = 16 * 2**20  # per request
BUFFERED = 512 * 2**20  # of all bodies together
SECONDS = 30.0  # for the response
RELEASED = 32 * 2**20  # bytes of bodies after which freed memory is given back, when none is left
UPLOAD_SECONDS, STALLED_SECONDS = 60.0, 10.0  # for the whole body; until its next bytes
_BUSY = "The server is overloaded: try again in a second."
_DRAINED, _DRAIN_SECONDS = 256 * 2**20, 5.0  # of a body that is refused

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class _Refused(Exception):
    """A request that is answered with (status, sentence), and whether more of its body comes."""


class Limits:
    """ASGI middleware: above a limit the response is 503, 413, 408 or 504, with a JSON error.

    Args:
      longer: path -> seconds, in place of `seconds`; smaller: path -> bytes, in place of `size`.
    """

    def __init__(
        self,
        app: Any,
        requests: int = REQUESTS,
        client: int = CLIENT,
        size: int = BYTES,
        seconds: float = SECONDS,
        stalled: float = STALLED_SECONDS,
        longer: Mapping[str, float] | None = None,
        smaller: Mapping[str, int] | None = None,
    ):
        self.app, self.requests, self.client, self.size = app, requests, client, size
        self.seconds, self.stalled = seconds, stalled
        self.longer, self.smaller = longer or {}, smaller or {}
        self.running = self.buffered = self._read = 0
        self._of_client: collections.Counter[str] = collections.Counter()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            with self._counted((scope.get("client") or [""])[0]):
                async with self._whole(scope, receive) as body:
                    if body is not None:
                        await self._bounded(scope, _replayed(body, receive), send)
        except _Refused as refused:
            await _refuse(receive, send, *refused.args)

    @contextlib.contextmanager
    def _counted(self, client: str):
        if self._of_client[client] >= self.client:
            raise _Refused(
                503, "Too many requests of yours at a time: try again in a second.", True
            )
        self._of_client[client] += 1
        try:
            yield
        finally:
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    @contextlib.asynccontextmanager
    async def _whole(self, scope: Mapping[str, Any], receive: Receive) -> AsyncIterator[bytes]:
        """The body, which counts as buffered; None if the client has gone."""
        size = self.smaller.get(scope["path"], self.size)
        too_large = f"The request has more than {size:,} bytes: send a smaller image."
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if claimed.isdigit() and int(claimed) > size:
            raise _Refused(413, too_large, True)
        parts, read, more = [], 0, True
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                while more:
                    async with asyncio.timeout(self.stalled):
                        message = await receive()
                    if message["type"] != "http.request":
                        break
                    part, more = message.get("body", b""), message.get("more_body", False)
                    parts.append(part)
                    read += len(part)
                    self.buffered += len(part)
                    if read > size:
                        raise _Refused(413, too_large, more)
                    if self.buffered > BUFFERED:
                        raise _Refused(503, _BUSY, more)
            body = b"".join(parts)
            parts.clear()
            yield None if more else body
        except TimeoutError:
            raise _Refused(408, "The upload was too slow: send it again.", False) from None
        finally:
            self.buffered -= read
            self._read += read
            if not self.buffered and self._read > RELEASED:
                self._read = 0
                asyncio.get_running_loop().run_in_executor(None, runtime.release_freed_memory)

    async def _bounded(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if self.running >= self.requests:
            raise _Refused(503, _BUSY, False)
        started, seconds = False, self.longer.get(scope["path"], self.seconds)

        async def noted(message: Mapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        self.running += 1
        try:
            async with asyncio.timeout(seconds):
                await self.app(scope, receive, noted)
        except TimeoutError:
            if not started:
                sentence = f"This took longer than {seconds:g} seconds."
                raise _Refused(504, sentence, False) from None
        finally:
            self.running -= 1


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body at once, and then what comes: that the client has gone."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Mapping[str, Any]:
        return messages.pop() if messages else await receive()

    return replayed


async def _refuse(receive: Receive, send: Send, status: int, sentence: str, more: bool) -> None:
    """Send an error as JSON, and read the rest of the body before the end: many clients read no
    response while they send, and would see their connection reset."""
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    left = _DRAINED if more else 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    break
    await send({"type": "http.response.body", "body": b""})
