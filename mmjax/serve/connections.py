"""Limits of connections, below HTTP: how many are open, and how long a header may take.

A request begins to count when its header is complete, so that clients that never complete one must
not keep others out: each has `HEADER_SECONDS`, and where all files that the system allows are open
the connection that has waited longest makes room for a new one.
"""

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # from the connection, or from the first byte of a further request
OPEN = 4096  # connections; fewer where the system allows fewer files
_OTHER_FILES = 96  # of the index, the model, decoders and uploads


def most_open() -> int:
    """How many connections may be open; raises the soft limit of open files to what is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN + _OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - _OTHER_FILES)


def protocol(most: int, seconds: float = HEADER_SECONDS) -> type[H11Protocol]:
    """The class of all connections of a server, for `uvicorn.Config(http=...)`.

    Args:
      most: connections that may be open; seconds: that a header may take.
    """
    waiting: dict[Any, None] = {}  # connections without a request, that of the longest wait first
    count = 0

    class Connection(H11Protocol):
        """A connection that is closed if it takes too long, or to make room."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            nonlocal count
            super().connection_made(transport)
            count += 1
            waiting[self] = None
            if count > most:  # it counts until it is lost, later: then none is aborted twice
                oldest = next(iter(waiting))
                del waiting[oldest]
                oldest.transport.abort()
            self._late = self.loop.call_later(seconds, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._note(begun=True)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._note(begun=False)

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal count
            super().connection_lost(exc)
            count -= 1
            self._stop()

        def _note(self, begun: bool) -> None:
            """Measure the time while there is no request, once one has begun; before that the
            server's own timeout of idle connections counts."""
            done = self.cycle is None or self.cycle.response_complete
            if not (done and self.conn.their_state is h11.IDLE):
                self._stop()
            elif not self.transport.is_closing():
                waiting.setdefault(self)
                if begun and self._late is None:
                    self._late = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            waiting.pop(self, None)
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Connection
