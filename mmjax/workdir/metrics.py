"""A run's metrics: written to metrics.jsonl, TensorBoard and a tracker, and averaged between log
points."""

import collections
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import storage
from mmjax.workdir import jsonl
from mmjax.workdir.trackers import Tracker


class MetricWriter:
    """Writes scalars to `<workdir>/metrics.jsonl` and to TensorBoard.

    A line of the JSONL is `{"step": 100, "train/loss": 1.5}`. NaN and infinities, which JSON does
    not have, are the strings "NaN", "Infinity" and "-Infinity": `float()` reads them all.
    Only process 0 writes. A line torn by a kill is cut off when the writer opens.

    Args:
      workdir: created if missing.
      tensorboard: also write event files into `<workdir>/tensorboard`.
      process_index: this process, `jax.process_index()`.
      tracker: also gets every line.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        tensorboard: bool = True,
        process_index: int = 0,
        tracker: Tracker | None = None,
    ):
        self.path = Path(workdir) / "metrics.jsonl"
        self._tracker = tracker
        self._active = process_index == 0
        self._tensorboard = tensorboard
        self._events = None  # made at the first write, as tensorboardX is slow to import
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
        jsonl.append(self.path, [jsonl.plain({"step": int(step), **values})])
        if self._tensorboard:
            self._write_events(step, values)
        if self._tracker is not None:
            self._tracker.write(int(step), values)

    def _write_events(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        # Not `add_scalar`, which renames "recall@1" to "recall_1". A plot cannot show NaN.
        shown = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if math.isfinite(value)
        ]
        self._event_writer().file_writer.add_summary(Summary(value=shown), int(step))

    def rewind(self, step: int) -> None:
        """Drop everything after `step`, from which the run resumes."""
        if not self._active:
            return
        kept = [row for row in jsonl.read(self.path, step=int) if row["step"] <= step]
        storage.write(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.close()
        self._purge_step = step + 1

    def close(self) -> None:
        """Close the event file and the tracker; a later write opens them again."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._tracker is not None:
            self._tracker.close()

    def _event_writer(self):
        if self._events is None:
            from tensorboardX import SummaryWriter

            folder = str(self.path.parent / "tensorboard")
            self._events = SummaryWriter(folder, purge_step=self._purge_step, flush_secs=10)
        return self._events


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """The rows of `<workdir>/metrics.jsonl`, `step` an int and the rest floats; without an
    incomplete last line, and empty if there is no file.

    Raises:
      ValueError: a line that is none of metrics.
    """
    path = Path(workdir) / "metrics.jsonl"
    return [
        {"step": row["step"], **numbers(row, f"{path}, step {row['step']}", ("step",))}
        for row in jsonl.read(path, step=int)
    ]


def numbers(values: Mapping[str, Any], where: str, besides: Sequence[str] = ()) -> dict[str, float]:
    """The values as floats, without those named `besides`.

    Raises:
      ValueError: one that is no number; `where` it is.
    """
    try:
        return {name: float(x) for name, x in values.items() if name not in besides}
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{where} has a value that is no number: delete that line or part."
        ) from None


class ScalarWindow:
    """Means of device scalars between two log points, without waiting for a step.

    Holds the arrays as they are and fetches them all at once, so that a step costs no dispatch;
    `clu.metrics` would merge on the device at every step.
    """

    def __init__(self):
        self._steps: list[Mapping[str, Any]] = []

    def add(self, scalars: Mapping[str, Any]) -> None:
        """Add one step's scalars, without waiting for the device."""
        self._steps.append(dict(scalars))

    def mean(self) -> dict[str, float]:
        """Mean of each name over the steps that had it, in float64; empties the window.

        NaN is a step none of whose rows had it; a name that no step had is left out.
        """
        values = collections.defaultdict(list)
        for scalars in jax.device_get(self._steps):
            for name, value in scalars.items():
                values[name].append(float(value))
        self._steps = []
        means = {name: _mean(v) for name, v in values.items()}
        return {name: mean for name, mean in means.items() if mean is not None}


def _mean(values: Sequence[float]) -> float | None:
    valid = [v for v in values if not math.isnan(v)]
    return float(np.mean(valid, dtype=np.float64)) if valid else None
