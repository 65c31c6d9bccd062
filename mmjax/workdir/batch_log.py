"""The batch log: checksums of every step's batch, to verify a replay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmjax import batch as batches
from mmjax.workdir import jsonl
from mmjax.workdir.checksum import checksums

NAME = "batches.jsonl"


class BatchLog:
    """A line per step in `<workdir>/batches.jsonl`: `{"step": 12, "image": 5, ...}`.

    `step` counts as in metrics.jsonl. Each other key is an array of the batch, with its checksum
    on the devices. The file is append-only: a step that is repeated after a kill has one line for
    each time.

    Args:
      workdir: the run's folder, which must exist.
    """

    def __init__(self, workdir: str | Path):
        self.path = Path(workdir) / NAME
        self._pending: list[tuple[int, Mapping[str, jax.Array]]] = []
        if jax.process_index() == 0:
            jsonl.cut_torn_end(self.path)

    def add(self, step: int, batch: batches.Batch) -> None:
        """Add one batch's checksums, without waiting for the device."""
        self._pending.append((step, checksums(dict(batch))))

    def flush(self) -> None:
        """Write the added lines.

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
    """The newest line of a step, or None if it has none."""
    rows = jsonl.read(Path(workdir) / NAME, step=int)
    return next((row for row in reversed(rows) if row["step"] == step), None)


def differing(line: Mapping[str, Any], batch: batches.Batch) -> list[str]:
    """Names of the arrays that differ from the line: other values, missing, or extra."""
    sums = {k: int(v) for k, v in jax.device_get(checksums(dict(batch))).items()}
    # Older logs also have the number of processes, on which Mixup then depended.
    logged = {k: v for k, v in line.items() if k not in ("step", "processes")}
    return sorted(k for k in sums.keys() | logged.keys() if sums.get(k) != logged.get(k))
