"""The numbers of a log line that are not the model's: speed, utilization, memory, goodput."""

import resource
import time
from collections.abc import Sequence

import jax


class Meter:
    """Reads what a training run achieves.

    Args:
      first_step: the step that this process starts from.
      peak: peak FLOP/s of one device; None: unknown.

    Attributes:
      flops: of one step, over all devices, recomputation included; 0: unknown.
    """

    def __init__(self, first_step: int, peak: float | None = None):
        self.flops = 0.0
        self._first, self._peak, self._began = first_step, peak, time.monotonic()

    def read(
        self, step: int, batch_size: int, examples_per_second: float, devices: Sequence[jax.Device]
    ) -> dict[str, float]:
        """The numbers at a step, at the present rate; those that are unknown are left out.

        - `step_seconds`; `tflops_per_device`: matrix products per second, in 10^12 FLOP/s; `mfu`:
          their fraction of the peak.
        - `goodput`: the fraction of the time since this process began to train that its steps
          took; the rest is compilation, waiting for data, evaluation and saving.
        - `host_memory_gib`, `device_memory_gib`: peaks of this process and of its first device.
        """
        found = {}
        if examples_per_second > 0:  # it is 0 before the second step
            found["examples_per_second"] = examples_per_second
            seconds = batch_size / examples_per_second
            elapsed = time.monotonic() - self._began
            found["step_seconds"] = seconds
            found["goodput"] = min(1.0, (step - self._first) * seconds / elapsed)
            if self.flops:
                each = self.flops / seconds / len(devices)
                found["tflops_per_device"] = each / 1e12
                if self._peak:
                    found["mfu"] = each / self._peak
        found["host_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        stats = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            found["device_memory_gib"] = stats["peak_bytes_in_use"] / 2**30
        return found
