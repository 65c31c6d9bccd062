"""Limits on concurrent requests, and on the size and duration of a request."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

REQUESTS = 64  # concurrent
BYTES = 16 * 2**20  # per request
SECONDS = 30.0  # per request, including its upload

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Limits:
    """ASGI middleware: above a limit the response is 503, 413 or 504, with a JSON error."""

    def __init__(
        self, app: Any, requests: int = REQUESTS, size: int = BYTES, seconds: float = SECONDS
    ):
        self.app, self.requests, self.size, self.seconds = app, requests, size, seconds
        self.running = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Callable, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.running >= self.requests:
            await _drain(receive, self.size)
            await answer(send, 503, "The server is overloaded: try again in a second.")
            return
        self.running += 1
        try:
            await self._bounded(scope, receive, send)
        finally:
            self.running -= 1

    async def _bounded(self, scope: Mapping[str, Any], receive: Callable, send: Send) -> None:
        started = over = False
        read = 0
        too_large = f"The request has more than {self.size:,} bytes: send a smaller image."

        async def counted() -> Mapping[str, Any]:
            nonlocal read, over
            message = await receive()
            read += len(message.get("body", b""))
            over = over or read > self.size
            return {"type": "http.disconnect"} if over else message

        async def noted(message: Mapping[str, Any]) -> None:
            nonlocal started
            if not over:  # the application's error about the truncated body is not the cause
                started = True
                await send(message)

        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        over = claimed.isdigit() and int(claimed) > self.size
        try:
            if not over:
                async with asyncio.timeout(self.seconds):
                    await self.app(scope, counted, noted)
        except TimeoutError:
            if not started:
                await answer(send, 504, f"This took longer than {self.seconds:g} seconds.")
        except Exception:
            if not over:
                raise
        if over and not started:
            await answer(send, 413, too_large)


async def answer(send: Send, status: int, sentence: str) -> None:
    """Send an error as JSON."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": sentence}).encode()})


async def _drain(receive: Callable, most: int) -> None:
    """Read the rest of the request body: some clients read no response while they send."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
