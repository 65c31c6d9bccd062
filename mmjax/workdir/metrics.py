"""What a run writes down: metrics (JSONL, TensorBoard, console), progress line, manifest."""

import collections
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from mmjax.workdir import jsonl, whole_file

PACKAGES = (
    "mmjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "ml_collections",
    "grain",
    "tokenizers",
    "numpy",
)


class MetricWriter:
    """Writes scalars to `<workdir>/metrics.jsonl`, to TensorBoard and to the console.

    A line of the JSONL is `{"step": 100, "train/loss": 1.5}`. NaN and infinities, which JSON does
    not have, are the strings "NaN", "Infinity" and "-Infinity": `float()` reads them all.
    Only process 0 writes. A line torn by a kill is cut off when the writer opens.

    Args:
      workdir: made if absent.
      tensorboard: also write event files into `<workdir>/tensorboard`.
      console: also print each write as a line; leave off beside a `ProgressLine`.
      process_index: this process, `jax.process_index()`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        tensorboard: bool = True,
        console: bool = True,
        process_index: int = 0,
    ):
        self.path = Path(workdir) / "metrics.jsonl"
        self._active = process_index == 0
        self._tensorboard = tensorboard
        self._console = console
        self._events = None  # tensorboardX takes a while to import: at the first write
        self._purge_step: int | None = None
        if self._active:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            jsonl.cut_torn_end(self.path)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write the scalars of a step; device arrays are fetched.

        Raises:
          ValueError: the file cannot be written, for instance because the disk is full.
        """
        if not self._active:
            return
        fetched = jax.device_get(list(scalars.values()))
        values = {name: float(value) for name, value in zip(scalars, fetched)}
        jsonl.append(self.path, [_jsonable({"step": int(step), **values})])
        if self._tensorboard:
            events = self._event_writer()
            for name, value in values.items():
                if math.isfinite(value):  # a plot cannot show it, and tensorboardX prints a warning
                    events.add_scalar(name, value, int(step))
        if self._console:
            print(f"[{step}] " + "  ".join(f"{k} {_number(v)}" for k, v in values.items()))

    def rewind(self, step: int) -> None:
        """Forget everything after `step`, from which the run goes on."""
        if not self._active:
            return
        kept = [row for row in jsonl.read(self.path) if row["step"] <= step]
        whole_file.write(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.close()
        self._purge_step = step + 1

    def close(self) -> None:
        """Close the event file; a later write opens another."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _event_writer(self):
        if self._events is None:
            from tensorboardX import SummaryWriter

            folder = str(self.path.parent / "tensorboard")
            self._events = SummaryWriter(folder, purge_step=self._purge_step, flush_secs=10)
        return self._events


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """The rows of `<workdir>/metrics.jsonl`, `step` an int and the rest floats; a torn end is left
    out, and without the file there are none."""
    rows = jsonl.read(Path(workdir) / "metrics.jsonl")
    return [{k: v if k == "step" else float(v) for k, v in row.items()} for row in rows]


class ScalarWindow:
    """Means of device scalars between two log points, without waiting for a step.

    Holds the arrays as they are and fetches them all at once, so that a step costs no dispatch;
    `clu.metrics` would merge on the device at every step.
    """

    def __init__(self):
        self._steps: list[Mapping[str, Any]] = []

    def add(self, scalars: Mapping[str, Any]) -> None:
        """Keep one step's scalars, which may still be in the making on the device."""
        self._steps.append(dict(scalars))

    def mean(self) -> dict[str, float]:
        """Mean of each name over the steps that had it (NaN: no row of that batch), in float64;
        empties the window."""
        values = collections.defaultdict(list)
        for scalars in jax.device_get(self._steps):
            for name, value in scalars.items():
                values[name].append(float(value))
        self._steps = []
        return {name: _mean(v) for name, v in values.items()}


def _mean(values: Sequence[float]) -> float:
    there = [v for v in values if not math.isnan(v)]
    return float(np.mean(there, dtype=np.float64)) if there else math.nan


class ProgressLine:
    """One live line on a terminal; elsewhere a line every 10 s or 5 % of the run.

    Shows percent, step (the last that the device finished), loss, logit_scale, examples/s, the
    share of time spent waiting for data and the time left. Rates are over the last 20 s and leave
    out the first step, which compiles.
    Scalars are shown once the device has them: drawing never waits for a step.

    Args:
      total_steps, examples_per_step: of the run; start_step: the step it goes on from.
      stream: where to draw; None is standard error.
    """

    WINDOW_SECONDS = 20.0

    def __init__(
        self,
        total_steps: int,
        examples_per_step: int,
        start_step: int = 0,
        stream: TextIO | None = None,
    ):
        self._total, self._examples = total_steps, examples_per_step
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._finished_step = self._drawn_step = start_step
        self._drawn_time = -math.inf if self._live else time.monotonic()
        self._shown: dict[str, float] = {}
        # Steps that the device may still be at, and when which of the others were seen finished:
        # a loop that runs ahead of the device says nothing of its speed.
        self._pending = collections.deque(maxlen=64)
        self._finished: collections.deque[tuple[float, int]] = collections.deque()
        self._waits: collections.deque[tuple[float, float]] = collections.deque()
        self._width = 0

    def update(self, step: int, scalars: Mapping[str, Any], wait_seconds: float) -> None:
        """Take a step that was started: its scalars (`loss`, `logit_scale`, bare or under `train/`)
        and the seconds that the loop waited for its batch."""
        now = time.monotonic()
        self._pending.append((step, scalars))
        self._waits.append((now, wait_seconds))
        self._see_finished(now)
        since = now - self._drawn_time
        if self._live:
            due = since >= 0.1
        else:
            steps = self._finished_step - self._drawn_step
            due = since >= 10.0 or steps >= max(1, self._total // 20)
        if due:
            self._draw(now)

    def restart(self) -> None:
        """Begin the window anew, after an evaluation or a save: their time is no step's."""
        now = time.monotonic()
        self._see_finished(now)
        self._finished.clear()
        self._finished.append((now, self._finished_step))

    def print(self, text: str) -> None:
        """Print a message above the live line."""
        self._erase()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Draw the last step, which is waited for, and end the line."""
        for step, scalars in self._pending:
            self._take(step, scalars)
        self._pending.clear()
        if self._live or self._finished_step != self._drawn_step:
            self._draw(time.monotonic())
        if self._live:
            self._stream.write("\n")
        self._width = 0
        self._stream.flush()

    @property
    def examples_per_second(self) -> float:
        """Of the steps that the device finished in the last 20 s; 0 before the second."""
        self._see_finished(time.monotonic())
        if len(self._finished) < 2:
            return 0.0
        steps = self._finished[-1][1] - self._finished[0][1]
        return steps * self._examples / self._seconds

    @property
    def data_wait_share(self) -> float:
        """Share of the last 20 s that the loop waited for a batch, 0 to 1."""
        self._see_finished(time.monotonic())
        if not self._finished:
            return 0.0
        waits = [wait for at, wait in self._waits if at <= self._finished[-1][0]]
        return min(1.0, sum(waits) / self._seconds)

    @property
    def _seconds(self) -> float:
        return max(self._finished[-1][0] - self._finished[0][0], 1e-9)

    def _see_finished(self, now: float) -> None:
        """Take what the device has ready, and let go of what is out of the window."""
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

    def line(self) -> str:
        """The line as text."""
        rate = self.examples_per_second
        step, total = self._finished_step, self._total
        parts = [f"{100 * step / total:5.1f} %", f"step {step}/{total}"]
        parts += [f"{name} {_number(value)}" for name, value in self._shown.items()]
        if rate > 0:
            left = (total - step) * self._examples / rate
            parts.append(f"{rate:,.0f} examples/s")
            parts.append(f"waiting {100 * self.data_wait_share:.0f} %")
            parts.append(f"ETA {_duration(left)}")
        return "  ".join(parts)

    def _draw(self, now: float) -> None:
        text = self.line()
        if self._live:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
        self._drawn_step, self._drawn_time = self._finished_step, now

    def _erase(self) -> None:
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def by_rows(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Results "evaluation/metric" -> value as row -> metric -> value.

    What stands before the last "/", such as a control within an evaluation, is a row.
    """
    rows: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        name, metric = key.rsplit("/", 1)
        rows.setdefault(name, {})[metric] = value
    return rows


def by_columns(results: Mapping[str, float]) -> list[dict[str, dict[str, float]]]:
    """The rows of `by_rows` as tables, all of a table's rows with the same metrics."""
    tables: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for name, row in by_rows(results).items():
        tables.setdefault(tuple(row), {})[name] = row
    return list(tables.values())


def print_table(
    rows: Sequence[Mapping[str, Any]], title: str = "", stream: TextIO | None = None
) -> None:
    """Print rows (column -> value) as an aligned table; columns in order of first appearance."""
    stream = sys.stdout if stream is None else stream
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_number(row.get(name, "")) for name in columns] for row in rows]
    right = [all(isinstance(r.get(n, 0), (int, float, np.number)) for r in rows) for n in columns]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]

    def text(row):
        parts = [
            c.rjust(w) if is_right else c.ljust(w) for c, w, is_right in zip(row, widths, right)
        ]
        return "  ".join(parts).rstrip()

    lines = [text(columns), "  ".join("─" * w for w in widths), *map(text, cells)]
    stream.write("\n".join([title, *lines] if title else lines) + "\n")
    stream.flush()


def write_manifest(workdir: str | os.PathLike, **sections: Any) -> None:
    """Write `<workdir>/run.json`: the sections given, and what the run is made on.

    A section replaces its earlier self and the others stay, so that config can come at the start
    and results at the end. Always written: package versions, Python, platform, devices, git.

    Raises:
      ValueError: a `run.json` that is not JSON, or a full disk, which leaves the old one.
    """
    path = Path(workdir) / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = {}
    if path.exists():
        try:
            manifest = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error}): delete it.") from None
    devices = jax.devices()
    manifest |= {
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": {"kind": devices[0].device_kind, "count": len(devices)},
        "git": git_revision(),
    }
    manifest |= sections
    whole_file.write(path, json.dumps(_jsonable(manifest), indent=2, allow_nan=False) + "\n")


def git_revision() -> dict[str, Any] | None:
    """`{"revision": sha, "dirty": bool}` of the checkout that this code lies in, else None."""
    here = Path(__file__).resolve()

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *args], cwd=here.parent, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside another project's checkout: only a tracked file counts.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    return None if revision is None else {"revision": revision, "dirty": bool(status)}


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _is_ready(value: Any) -> bool:
    return value.is_ready() if isinstance(value, jax.Array) else True


def _number(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _jsonable(value: Any) -> Any:
    """Plain JSON values; NaN and infinities as strings, unknown objects by their repr."""
    if hasattr(value, "to_dict"):  # ml_collections
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
