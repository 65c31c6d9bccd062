"""A progress line on the terminal for work on data that a person waits for."""

import sys
import time
from types import TracebackType


class Progress:
    """`with Progress("Building emoji", total) as progress: ... progress.advance()`.

    Redraws one line on a terminal; elsewhere prints a line a minute and one at the end, so that
    logs stay short. Work of under a second prints nothing off the terminal.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total = what, total
        self.done = 0
        self._start = self._drawn = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.done += n
        now = time.monotonic()
        redraws = sys.stderr.isatty()
        if now - self._drawn > (0.2 if redraws else 60):
            self._drawn = now
            left = (now - self._start) / self.done * (self.total - self.done)
            percent = 100 * self.done / max(1, self.total)
            line = f"{self.what}: {percent:3.0f} % of {self.total:,}, {left:.0f} s left"
            start, end = ("\r", " \x1b[K") if redraws else ("", "\n")
            print(start + line, end=end, file=sys.stderr, flush=True)

    def __exit__(self, kind: type | None, error: BaseException | None, tb: TracebackType | None):
        seconds = time.monotonic() - self._start
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        if error is None and (sys.stderr.isatty() or seconds > 1):
            print(f"{self.what}: {self.done:,} in {seconds:.1f} s", file=sys.stderr, flush=True)
