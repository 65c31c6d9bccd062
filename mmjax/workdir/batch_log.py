"""The log of batches: checksums of what every step was trained on, to prove a replay by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax import batch as batches
from mmjax.workdir import jsonl
from mmjax.workdir.checksum import checksums

NAME = "batches.jsonl"


class BatchLog:
    """A line a step in `<workdir>/batches.jsonl`: `{"step": 12, "image": 5, ...}`.

    `step` is that of metrics.jsonl: the update that ends there. Each other name is an array of the
    batch, with its checksum as the devices had it. Lines are only ever added: a step that is taken
    again, after a kill, has a line of each time.

    Args:
      workdir: the run's folder, which exists.
    """

    def __init__(self, workdir: str | Path):
        self.path = Path(workdir) / NAME
        self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
        if jax.process_index() == 0:
            jsonl.cut_torn_end(self.path)

    def add(self, step: int, batch: batches.Batch) -> None:
        """Keep one batch's checksums, which may still be in the making on the device."""
        self._pending.append((step, checksums(dict(batch))))

    def flush(self) -> None:
        """Write what was added.

        Raises:
          ValueError: the file cannot be written, for instance because the disk is full.
        """
        if self._pending and jax.process_index() == 0:
            jsonl.append(
                self.path,
                [
                    {"step": step} | {k: int(v) for k, v in sums.items()}
                    for step, sums in jax.device_get(self._pending)
                ],
            )
        self._pending = []


def line_of(workdir: str | Path, step: int) -> dict[str, Any] | None:
    """The newest line of a step, or None where it has none."""
    rows = jsonl.read(Path(workdir) / NAME)
    return next((row for row in reversed(rows) if row["step"] == step), None)


def differing(line: Mapping[str, Any], batch: batches.Batch) -> list[str]:
    """Names of the arrays that are not those of the line: other values, absent, or not in it."""
    sums = {k: int(v) for k, v in jax.device_get(checksums(dict(batch))).items()}
    # Logs of before Mixup was the same for any number of processes hold that number.
    logged = {k: v for k, v in line.items() if k not in ("step", "processes")}
    return sorted(k for k in sums.keys() | logged.keys() if sums.get(k) != logged.get(k))
