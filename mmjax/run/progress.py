"""The progress line of a training run."""

import collections
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

import jax
from rich.progress import Task

from mmjax.process.progress import Line, duration
from mmjax.workdir.tables import number


class ProgressLine:
    """One live line on a terminal; elsewhere a line every 10 s or 5 % of the run.

    Shows percent, step (the last that the device finished), loss, logit_scale, examples/s, what a
    meter adds (MFU, memory), the fraction of time in which the device waits for data and the time
    left. Rates are over the last 20 s and leave out the first step, which compiles. Scalars are
    shown once the device has them: drawing never waits for a step.

    Args:
      total_steps, examples_per_step: of the run, of steps that differ the mean; start_step: the
        step it resumes from.
      stream: where to draw; None is standard error.
      meter: examples/s -> more for the line.
    """

    WINDOW_SECONDS = 20.0

    def __init__(
        self,
        total_steps: int,
        examples_per_step: float,
        start_step: int = 0,
        stream: TextIO | None = None,
        meter: Callable[[float], Iterable[str]] | None = None,
    ):
        self._meter = meter
        self._examples, self._finished_step = examples_per_step, start_step
        self._shown: dict[str, float] = {}
        # Steps in flight, and when earlier ones were seen finished: the loop runs ahead of the
        # device, so its own pace says nothing about speed.
        self._pending = collections.deque(maxlen=64)
        self._finished: collections.deque[tuple[float, int]] = collections.deque()
        self._waits: collections.deque[tuple[float, float]] = collections.deque()
        self._line = Line(
            self._facts, total_steps, start_step, stream=stream, seconds=10, parts=20, stays=True
        )

    def update(self, step: int, scalars: Mapping[str, Any], wait_seconds: float) -> None:
        """Record a dispatched step: its scalars (`loss`, `logit_scale`, bare or under `train/`) and
        the seconds that the device was idle, waiting for its batch."""
        now = time.monotonic()
        self._pending.append((step, scalars))
        self._waits.append((now, wait_seconds))
        self._see_finished(now)
        self._line.update(self._finished_step)

    def busy(self) -> bool:
        """Whether the device has not finished the newest step."""
        return bool(self._pending) and not all(map(_is_ready, self._pending[-1][1].values()))

    def restart(self) -> None:
        """Restart the window after an evaluation, a save or a compilation, which must not count as
        step time."""
        now = time.monotonic()
        self._see_finished(now)
        self._finished.clear()
        self._finished.append((now, self._finished_step))

    def close(self) -> None:
        """Wait for the last step, draw it, and end the line."""
        for step, scalars in self._pending:
            self._take(step, scalars)
        self._pending.clear()
        self._line.close(self._finished_step)

    def text(self) -> str:
        """The line as it is now."""
        return self._line.text()

    @property
    def examples_per_second(self) -> float:
        """Rate of the steps that the device finished in the last 20 s; 0 before the second."""
        self._see_finished(time.monotonic())
        if len(self._finished) < 2:
            return 0.0
        steps = self._finished[-1][1] - self._finished[0][1]
        return steps * self._examples / self._seconds

    @property
    def data_wait_share(self) -> float:
        """Fraction of the last 20 s that the device was idle, waiting for a batch, 0 to 1."""
        self._see_finished(time.monotonic())
        if not self._finished:
            return 0.0
        waits = [wait for at, wait in self._waits if at <= self._finished[-1][0]]
        return min(1.0, sum(waits) / self._seconds)

    @property
    def _seconds(self) -> float:
        return max(self._finished[-1][0] - self._finished[0][0], 1e-9)

    def _see_finished(self, now: float) -> None:
        """Take the steps that the device has finished, and drop those outside the window."""
        before = len(self._pending)
        while self._pending and all(map(_is_ready, self._pending[0][1].values())):
            self._take(*self._pending.popleft())
        if len(self._pending) < before:
            self._finished.append((now, self._finished_step))
        while len(self._finished) > 2 and now - self._finished[0][0] > self.WINDOW_SECONDS:
            self._finished.popleft()
        while self._finished and self._waits and self._waits[0][0] <= self._finished[0][0]:
            self._waits.popleft()

    def _take(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._finished_step = step
        for name in ("loss", "logit_scale"):
            value = scalars.get(name, scalars.get(f"train/{name}"))
            if value is not None:
                self._shown[name] = float(value)

    def _facts(self, task: Task) -> Iterable[str]:
        rate = self.examples_per_second
        step, total = self._finished_step, int(task.total)
        yield f"{100 * step / total:5.1f} %"
        yield f"step {step}/{total}"
        yield from (f"{name} {number(value)}" for name, value in self._shown.items())
        if rate > 0:
            yield f"{rate:,.0f} examples/s"
            yield from self._meter(rate) if self._meter else ()
            yield f"waiting {100 * self.data_wait_share:.0f} %"
            yield f"ETA {duration((total - step) * self._examples / rate)}"


def _is_ready(value: Any) -> bool:
    return value.is_ready() if isinstance(value, jax.Array) else True
