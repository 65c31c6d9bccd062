"""Goodput: the fraction of a run's wall time in steps that count, and where the rest went.

Kept in `<workdir>/goodput.jsonl` across restarts. The wall time runs from the first start of the
command to the last record; every second of it belongs to one cause:

- `useful`: steps whose result is in the parameters now.
- `redone`: steps trained before a restart from an older checkpoint, which are trained again.
- `startup`: from the start of a command to its loop: imports, joining the other processes, opening
  data, restoring.
- `compile`: from there until the first step is dispatched, and the dispatch of each later step
  whose batch has new shapes.
- `checkpoint`: the loop stands still for a save.
- `data`: the device is idle and waits for a batch.
- `evaluation`: evaluators, before, during and after training, and the report.
- `down`: from the last record before a kill to the next start; steps in it left no record.
- `other`: what remains, such as the trace of `config.profile`.

After MaxText's and Cloud TPU's definition ("ML Goodput", ml-goodput-measurement), with the state's
own restart point in place of a scheduler's view.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax.process.progress import duration
from mmjax.storage import mirror
from mmjax.workdir import jsonl

NAMES = {
    "useful": "useful steps",
    "redone": "steps trained again",
    "startup": "start-up",
    "compile": "compilation",
    "checkpoint": "saving",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "down": "down between restarts",
    "other": "other",
}
FILE = "goodput.jsonl"
_LATEST = 1e11  # seconds since the epoch


class Ledger:
    """Writes the record of one command.

    Args:
      workdir: of the run.
      began: seconds since the epoch at which the command started.
      active: whether to write: only process 0 does.
    """

    def __init__(self, workdir: str | os.PathLike, began: float, active: bool = True):
        self._path, self.active = Path(workdir) / FILE, active
        self._account, self._lost = Account(), dict[str, float]()
        self._began, self._zero = began, time.time() - time.monotonic()
        self._entered, self._waited = 0.0, 0.0

    @contextlib.contextmanager
    def lost(self, cause: str, after: Any = None) -> Iterator[None]:
        """The time inside belongs to a cause, once the device has computed the arrays `after`."""
        jax.block_until_ready(after)
        start = time.monotonic()
        try:
            yield
        finally:
            self._add(cause, time.monotonic() - start)

    def enter(self, step: int, total: int) -> None:
        """The loop begins at `step`. Where nothing is left to do, nothing is written."""
        if self.active:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            jsonl.cut_torn_end(self._path)
            before = read_rows(self._path)
            self.active = step < total or not (before and before[-1].get("end"))
            for row in before:
                self._account.add(row)
        self._write({"began": self._began, "step": step})
        self._entered = time.monotonic()

    def compiled(self, wait_seconds: float) -> None:
        """The first step is dispatched; `wait_seconds` as in `record`."""
        self._take_wait(wait_seconds)
        waited = self._lost.get("data", 0.0)
        self._add("compile", time.monotonic() - self._entered - waited)

    def record(self, step: int, wait_seconds: float, **more: Any) -> None:
        """Write down the time since the last record.

        Args:
          step: that the device has finished.
          wait_seconds: for data, since the loop began.
        """
        self._take_wait(wait_seconds)
        self._write({"step": step, **more})

    def end(self, step: int) -> None:
        """The run is complete."""
        self._write({"step": step, "end": True})

    @property
    def seconds(self) -> dict[str, float]:
        """Cause -> seconds of the whole run so far, earlier commands included."""
        return self._account.seconds

    def _take_wait(self, wait_seconds: float) -> None:
        self._add("data", wait_seconds - self._waited)
        self._waited = wait_seconds

    def _add(self, cause: str, seconds: float) -> None:
        if seconds > 0:
            self._lost[cause] = self._lost.get(cause, 0.0) + seconds

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.active:
            now = self._zero + time.monotonic()  # a clock that is set meanwhile does no harm
            row = {**row, "time": now, "lost": self._lost}
            jsonl.append(self._path, [row])
            self._account.add(row)
        self._lost = {}


class Account:
    """Seconds by cause, of the records of a run in order; their sum is its wall time.

    A row with `began` is a start, at `step`, whose loop began at `time`; the others end an
    interval, at `time`, after `step`. `lost` are the seconds by cause since the row before. After
    a row with `end` the run was complete: the time until it is continued, with more steps, does
    not count.
    """

    def __init__(self):
        self._found = dict.fromkeys(NAMES, 0.0)
        self._trained: list[tuple[int, int, float]] = []  # steps that count, and their seconds
        self._time: float | None = None
        self._step, self._ended = 0, False

    def add(self, row: Mapping[str, Any]) -> None:
        """The next row."""
        began, step, lost = self._time, row["step"], row["lost"]
        rest = "other" if step == self._step else "useful"
        if "began" in row:
            rest = "startup"
            began = row["began"] if began is None else max(began, row["began"])
            if self._time is not None and not self._ended:
                self._found["down"] += began - self._time
            self._restart(step)
        for cause, seconds in lost.items():
            self._found[cause] += seconds
        seconds = max(0.0, row["time"] - began - sum(lost.values()))
        self._found[rest] += seconds
        if rest == "useful":
            self._trained.append((self._step, step, seconds))
        self._time, self._step, self._ended = row["time"], step, row.get("end", False)

    def _restart(self, at: int) -> None:
        """Later steps are trained again; within an interval all take the same time."""
        while self._trained and self._trained[-1][1] > at:
            first, last, seconds = self._trained.pop()
            again = seconds * min(1.0, (last - at) / (last - first))
            self._found["useful"] -= again
            self._found["redone"] += again
            if first < at:
                self._trained.append((first, at, seconds - again))

    @property
    def seconds(self) -> dict[str, float]:
        """Cause -> seconds so far."""
        return dict(self._found)


def account(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The account of all rows of goodput.jsonl: cause -> seconds."""
    found = Account()
    for row in rows:
        found.add(row)
    return found.seconds


def read(workdir: str | os.PathLike) -> dict[str, float]:
    """The account of a workdir; empty without a record."""
    rows = read_rows(Path(workdir) / FILE)
    return account(rows) if rows else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of goodput.jsonl.

    Raises:
      ValueError: a line that is none of them, or a first one that is no start.
    """
    rows = jsonl.read(path, step=int, time=float, lost=dict)
    for number, row in enumerate(rows, 1):
        seconds = [row["time"], row.get("began", row["time"]), *row["lost"].values()]
        known = all(type(x) in (int, float) and 0 <= x < _LATEST for x in seconds)
        if not known or row["lost"].keys() - NAMES.keys():
            raise ValueError(
                f"{mirror.shown(path)}, line {number}, has other seconds than ours: delete that "
                "line."
            )
    if rows and "began" not in rows[0]:
        raise ValueError(
            f"{mirror.shown(path)} does not begin with the start of a run: delete the file."
        )
    return rows


def fraction(found: Mapping[str, float]) -> float:
    """The fraction of the time in useful steps."""
    return found["useful"] / max(sum(found.values()), 1e-9)


def sentence(found: Mapping[str, float]) -> str:
    """Such as "62 % of 10:00 in useful steps; down between restarts 20 %, compilation 18 %"."""
    total = max(sum(found.values()), 1e-9)
    lost = sorted(((s, c) for c, s in found.items() if c != "useful"), reverse=True)
    parts = [f"{NAMES[cause]} {s / total:.0%}" for s, cause in lost if s / total >= 0.005]
    said = f"{fraction(found):.0%} of {duration(total)} in useful steps"
    return said + (f"; {', '.join(parts)}" if parts else "")
