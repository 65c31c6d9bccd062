"""Progress: one live line on a terminal, elsewhere a plain line now and then."""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO

import rich.progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

Facts = Callable[[rich.progress.Task], Iterable[str]]


class Line:
    """A line of facts, drawn by rich. Lines may be nested, and prints appear above them.

    Args:
      facts: gives the parts of the line; called whenever it is drawn, in the caller's thread.
      total: the final count; done: the count at the start.
      stream: where to draw; None is standard error.
      seconds: off a terminal, the time between lines; parts: also print a line whenever another of
        this many equal parts of the total is done.
      stays: the last line stays on the terminal.
    """

    def __init__(
        self,
        facts: Facts,
        total: int,
        done: int = 0,
        *,
        stream: TextIO | None = None,
        seconds: float = 60.0,
        parts: int = 0,
        stays: bool = False,
    ):
        stream = sys.stderr if stream is None else stream
        # Within a live line rich replaces the stream by a proxy.
        self._stream = getattr(stream, "rich_proxied_file", stream)
        self.live = self._stream.isatty()
        self._column = _Column(facts)
        self._bar = rich.progress.Progress(
            self._column,
            rich.progress.BarColumn(20),
            console=_console(self._stream),
            auto_refresh=False,  # no thread: a line is drawn when there is something new to say
            transient=not stays,
            redirect_stdout=sys.stdout.isatty(),  # output to a file is left alone
            get_time=lambda: time.monotonic(),
            disable=not self.live,
        )
        task = self._bar.add_task("", total=total, completed=done)
        self._task = self._bar.tasks[task]
        self._seconds, self._step = seconds, max(1, total // parts) if parts else math.inf
        self._drawn_time = -math.inf if self.live else time.monotonic()
        self._drawn = done
        self._bar.start()

    def update(self, done: int) -> None:
        """Set the count; draws the line if that is due."""
        self._bar.update(self._task.id, completed=done)
        since = time.monotonic() - self._drawn_time
        if since >= (0.1 if self.live else self._seconds) or (
            not self.live and done - self._drawn >= self._step
        ):
            self.draw()

    def draw(self) -> None:
        """Draw the line as it is now."""
        if self.live:
            self._bar.refresh()
        else:
            self._stream.write(self.text() + "\n")
            self._stream.flush()
        self._drawn_time, self._drawn = time.monotonic(), self._task.completed

    def text(self) -> str:
        """The line as plain text."""
        return self._column.render(self._task).plain

    def close(self, done: int) -> None:
        """Draw the last state, if it is not shown yet, and end the line."""
        self.update(done)
        if self.live or done != self._drawn:
            self.draw()
        self.stop()

    def stop(self) -> None:
        """End the line as it is."""
        self._bar.stop()


class Progress:
    """`with Progress("Building emoji", total) as progress: ... progress.advance()`.

    Off a terminal it prints a line per minute and one at the end, so that logs stay short; work of
    under a second prints nothing there.
    """

    def __init__(self, what: str, total: int):
        self.what, self.done = what, 0
        self._line = Line(functools.partial(_left, what), total)
        self._start = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def advance(self, n: int = 1) -> None:
        """Count `n` more as done."""
        self.done += n
        self._line.update(self.done)

    def __exit__(self, kind: type | None, error: BaseException | None, tb: TracebackType | None):
        self._line.stop()
        seconds = time.monotonic() - self._start
        if error is None and (self._line.live or seconds > 1):
            print(f"{self.what}: {self.done:,} in {seconds:.1f} s", file=sys.stderr, flush=True)


class Stages:
    """`stages(what, done, total)` shows the progress of one thing after another."""

    def __init__(self):
        self._what: str | None = None
        self._line: Line | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._end()
            self._what, self._line = what, Line(functools.partial(_left, what), total)
        self._line.update(done)
        if done >= total:
            self._end()

    def _end(self) -> None:
        if self._line is not None:
            self._line.stop()
        self._what = self._line = None


def duration(seconds: float) -> str:
    """Such as 4:05, or 1:02:03 from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _left(what: str, task: rich.progress.Task) -> Iterable[str]:
    yield f"{what}: {task.percentage:3.0f} % of {task.total:,}"
    if task.completed:
        left = task.elapsed / task.completed * (task.total - task.completed)
        yield f"ETA {duration(left)}"


class _Column(rich.progress.ProgressColumn):
    """The facts, two spaces apart."""

    def __init__(self, facts: Facts):
        super().__init__(Column(no_wrap=True))  # where there is little room, the bar is shorter
        self._facts = facts

    def render(self, task: rich.progress.Task) -> Text:
        return Text("  ".join(self._facts(task)), no_wrap=True, overflow="ellipsis")


class _Console(Console):
    """Leaves the cursor visible: a process killed in the middle of a line cannot restore it."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


@functools.cache
def _console(stream: TextIO) -> Console:
    """One for each stream, so that nested lines know of each other."""
    return _Console(file=stream, force_terminal=stream.isatty(), highlight=False)
