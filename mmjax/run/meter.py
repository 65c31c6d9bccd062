"""The numbers of a log line that are not the model's: speed, utilization, memory."""

import collections
import resource
from collections.abc import Callable, Iterator, Sequence

import jax

from mmjax.batch import Batch, shapes


class Meter:
    """Reads what a training run achieves.

    Args:
      batch_size: examples of a step; their mean where steps differ.
      devices: all of the run.
      peak: peak FLOP/s of one device; None: unknown.
    """

    def __init__(self, batch_size: float, devices: Sequence[jax.Device], peak: float | None = None):
        self._flops: dict[tuple, float] = {}  # by the shapes of a batch
        self._steps: collections.Counter = collections.Counter()
        self._batch_size, self._devices, self._peak = batch_size, len(devices), peak

    def is_new(self, batch: Batch) -> bool:
        """Whether no batch of its shapes has been added, so that its step is compiled now."""
        return shapes(batch) not in self._flops

    def add(self, batch: Batch, count: Callable[[], float]) -> None:
        """A step on this batch; `count` gives its FLOPs over all devices, recomputation included,
        and is called once for batches of the same shapes."""
        key = shapes(batch)
        if key not in self._flops:
            self._flops[key] = count()
        self._steps[key] += 1

    @property
    def flops(self) -> float:
        """Of a step, the mean of those so far; 0: unknown."""
        total = sum(flops * self._steps[key] for key, flops in self._flops.items())
        return total / max(1, self._steps.total())

    def read(self, examples_per_second: float) -> dict[str, float]:
        """The numbers at this rate; those that are unknown are left out.

        - `step_seconds`; `tflops_per_device`: matrix products per second, in 10^12 FLOP/s; `mfu`:
          their fraction of the peak.
        - `host_memory_gib`, `device_memory_gib`: peaks of this process and of its first device.
        """
        found = {}
        if examples_per_second > 0:  # it is 0 before the second step
            found["examples_per_second"] = examples_per_second
            seconds = self._batch_size / examples_per_second
            found["step_seconds"] = seconds
            if self.flops:
                each = self.flops / seconds / self._devices
                found["tflops_per_device"] = each / 1e12
                if self._peak:
                    found["mfu"] = each / self._peak
        found["host_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        stats = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            found["device_memory_gib"] = stats["peak_bytes_in_use"] / 2**30
        return found

    def short(self, examples_per_second: float) -> Iterator[str]:
        """For a line: MFU, or where the peak is unknown FLOP/s; and the memory of the device, or
        where it is unknown of this process."""
        found = self.read(examples_per_second)
        if "mfu" in found:
            yield f"MFU {found['mfu']:.1%}"
        elif "tflops_per_device" in found:
            yield f"{found['tflops_per_device']:.3g} TFLOP/s per device"
        memory = found.get("device_memory_gib", found["host_memory_gib"])
        yield f"{memory:.1f} GiB"
