"""`config.profile`: a trace of a few steps, and a table of where their time goes.

The trace is in `<workdir>/profile/`, for XProf (`xprof WORKDIR/profile`) or Perfetto, the table in
`<workdir>/profile.json`, which the report shows.
"""

import bisect
import heapq
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mmjax import storage
from mmjax.batch import Batch, shapes
from mmjax.plan.categories import CATEGORIES, categories
from mmjax.storage import mirror
from mmjax.workdir import tables

FILE = "profile.json"
# The compile cache else gives a program of other code that differs only in the names of its modules
# and scopes, such as of an earlier version, and with it those names.
_NAMES_IN_KEY = "jax_compilation_cache_include_metadata_in_key"

_DEVICE = re.compile(r"/device:(TPU|GPU):(\d+)$")

Event = tuple[float, float, str]  # start, end, category
# Start and duration in ns, instruction ("": not known), its module, and the program's number.
Op = tuple[float, float, str, str, Any]


def check(settings: Mapping[str, int], total_steps: int) -> None:
    """Check `config.profile`: `start`, the first step to trace, and `steps`, how many.

    Raises:
      ValueError: steps that the run does not have.
    """
    last = settings["start"] + settings["steps"] - 1
    if settings["steps"] and last > total_steps:
        raise ValueError(
            f"config.profile traces the steps {settings['start']} to {last}, and "
            f"config.total_steps is {total_steps}: lower config.profile.start."
        )


class Profiler:
    """Traces the steps of `config.profile` in the loop, once in a run.

    Args:
      settings: `config.profile`.
      first: the step from which this process trains: its own first step compiles and is not
        traced. A run that starts beyond `start` traces nothing.
      total: steps of the run.
      pauses: after every so many steps an evaluation or a save, whose time is not that of steps: a
        trace ends before it, with fewer steps; 0: never.
      active: whether this process traces; process 0 does.
    """

    def __init__(
        self,
        settings: Mapping[str, int],
        workdir: Path,
        first: int,
        total: int,
        pauses: Sequence[int] = (),
        active: bool = True,
    ):
        start = max(settings["start"], first + 2)
        due = active and settings["steps"] > 0 and first < settings["start"] and start <= total
        ends = [start + settings["steps"] - 1, total, *(-(-start // n) * n for n in pauses if n)]
        self._start, self._last = start, min(ends)
        self._folder, self._workdir, self._due = workdir / "profile", workdir, due
        self._began, self._waited, self._traces = 0.0, 0.0, False
        self._programs: dict[tuple, jax.stages.Traced] = {}  # by the shapes of a batch
        self._key = getattr(jax.config, _NAMES_IN_KEY)
        if due:  # before the step is compiled
            jax.config.update(_NAMES_IN_KEY, True)

    def starts_at(self, step: int) -> bool:
        """Whether the trace begins before this step."""
        return self._due and step == self._start

    def ends_at(self, step: int) -> bool:
        """Whether the trace ends after this step."""
        return self._due and step == self._last

    def start(self, state: Any, wait_seconds: float) -> None:
        """Begin, once the device has computed `state`; `wait_seconds` for data so far."""
        jax.block_until_ready(state)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # it slows the steps
        jax.profiler.start_trace(str(self._folder), profiler_options=options)
        self._traces = True
        self._began, self._waited = time.perf_counter(), wait_seconds

    def add(self, batch: Batch, trace: Callable[[], jax.stages.Traced]) -> None:
        """A step on this batch; while a trace is under way, `trace` gives the step's program, and
        is called once for batches of the same shapes."""
        if self._traces and (key := shapes(batch)) not in self._programs:
            self._programs[key] = trace()

    def finish(self, wait_seconds: float) -> None:
        """End the trace, and print and save the table; the device has finished the last step.

        The programs of the steps are compiled again, from the compile cache where there is one.

        Args:
          wait_seconds: for data so far.
        """
        seconds = time.perf_counter() - self._began
        self._stop()
        texts = [traced.lower().compile().as_text() for traced in self._programs.values()]
        self.close()
        found = breakdown(newest_trace(self._folder), texts, seconds)
        waited = min(found["idle"], wait_seconds - self._waited)
        found |= {"host wait": waited, "idle": found["idle"] - waited}
        steps = self._last - self._start + 1
        found = {name: 1e3 * value / steps for name, value in found.items()}
        whole = {"start": self._start, "steps": steps, "milliseconds": found}
        storage.write(self._workdir / FILE, json.dumps(whole, indent=1) + "\n")
        title = f"the time of steps {self._start} to {self._last}"
        tables.print_table(rows(found), title=title)
        print(f"trace: {mirror.shown(self._folder)}")

    def close(self) -> None:
        """End a trace that is under way."""
        self._stop()
        if self._due:
            self._due = False
            jax.config.update(_NAMES_IN_KEY, self._key)

    def _stop(self) -> None:
        if self._traces:
            self._traces = False
            jax.profiler.stop_trace()


def rows(milliseconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The table: category, milliseconds, percent; the largest first."""
    total = sum(milliseconds.values()) or 1.0
    return [
        {"category": name, "ms a step": value, "%": round(100 * value / total, 1)}
        for name, value in sorted(milliseconds.items(), key=lambda item: -item[1])
        if value > 0
    ]


def newest_trace(folder: str | os.PathLike) -> Path:
    """The newest .xplane.pb in a folder of traces."""
    return max(Path(folder).rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)


def breakdown(trace: str | os.PathLike, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """Seconds by category of one device in a trace; "idle" is what remains of `seconds`.

    Where several instructions run at once, as on the cores of a CPU, each gets an equal part of
    that time, so that the sum is the wall time.

    Args:
      trace: a .xplane.pb file.
      texts: HLO of the programs that the steps run, in the order of their first steps.
      seconds: the duration of the traced steps.
    """
    found = dict.fromkeys(CATEGORIES, 0.0)
    found |= spread(_events(trace, [categories(text) for text in texts]))
    found["idle"] = max(0.0, seconds - sum(found.values()))
    return found


def _events(
    trace: str | os.PathLike, programs: Sequence[tuple[str, Mapping[str, str | None]]]
) -> Iterator[Event]:
    """The instructions that ran, of the first device (all of a CPU's), in seconds.

    The number that XLA gives a program says no more than that it is another one: programs are told
    apart by the order in which they begin. Sparse cores of a TPU are left out.

    Args:
      programs: module and categories of each.
    """
    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    devices = [(int(kind[2]), kind[1], p) for p in planes if (kind := _DEVICE.match(p.name))]
    if devices:
        _, kind, plane = min(devices, key=lambda device: device[0])
        if kind == "TPU":
            found = _of_tpu(plane, programs[0][0])
        else:
            # Kernels, also those of a CUDA graph, of which the instruction is not known, and
            # copies. Other lines repeat them by instruction, or are of the tracer itself.
            found = _by_stats(line for line in plane.lines if line.name.startswith("Stream #"))
    else:
        lines = (line for p in planes if p.name == "/host:CPU" for line in p.lines)
        found = (op for op in _by_stats(lines) if op[2])
    numbers: dict[Any, int] = {}
    for start, duration, name, module, number in sorted(found, key=lambda op: op[0]):
        category = "other"
        if name and module == programs[0][0]:
            at = numbers.setdefault(number, min(len(numbers), len(programs) - 1))
            category = programs[at][1].get(name, "other")
        if category is not None:
            yield start * 1e-9, (start + duration) * 1e-9, category


def _by_stats(lines: Iterable[Any]) -> Iterator[Op]:
    """The events of some lines, with the instructions in their statistics."""
    for line in lines:
        for event in line.events:
            stats = dict(event.stats)
            program = stats.get("hlo_module", ""), stats.get("program_id")
            yield event.start_ns, event.duration_ns, stats.get("hlo_op", ""), *program


def _of_tpu(plane: Any, own: str) -> Iterator[Op]:
    """The instructions that ran on a TPU: a line has them, by their HLO, and another one the
    programs, as "MODULE(NUMBER)". Without the latter all instructions are of the module `own`."""
    lines = {line.name: list(line.events) for line in plane.lines}
    modules = sorted(lines.get("XLA Modules", ()), key=lambda event: event.start_ns)
    starts = [event.start_ns for event in modules]
    for event in lines.get("XLA Ops", ()):
        at = bisect.bisect_right(starts, event.start_ns) - 1
        module, _, number = modules[at].name.partition("(") if at >= 0 else (own, "", None)
        name = event.name.partition(" = ")[0].lstrip("%")
        yield event.start_ns, event.duration_ns, name, module, number


def spread(events: Iterable[Event]) -> dict[str, float]:
    """Seconds by category: each moment is divided equally among the events that it is in."""
    found: Counter[str] = Counter()
    running: list[tuple[float, str]] = []  # (end, category), a heap
    active: Counter[str] = Counter()
    now = 0.0

    def until(moment: float) -> None:
        nonlocal now
        while now < moment and running:
            step = min(moment, running[0][0])
            for category, count in active.items():
                found[category] += (step - now) * count / len(running)
            now = step
            while running and running[0][0] <= now:
                active[heapq.heappop(running)[1]] -= 1
        now = moment

    for start, end, category in sorted(events):
        until(start)
        if end > start:
            heapq.heappush(running, (end, category))
            active[category] += 1
    until(max((end for end, _ in running), default=now))
    return dict(found)
