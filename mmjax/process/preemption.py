"""SIGTERM, which schedulers send before preemption, and Ctrl-C: save after a step, then stop."""

import collections
import functools
import signal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.process import distributed

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

# Steps between the reduction over devices and reading it, so that no host waits for a device.
_DELAY = 2


class StopSignals:
    """Outside the loop a signal ends the run at once; in it, after a step, for the loop to save.

    A signal to any one process counts for all. The exit code is 128 + the signal's number, 143 or
    130: a scheduler must not take the run for a finished one. A second Ctrl-C does not wait.

    Attributes:
      stopping: the signal for which all processes agreed to leave the loop; 0: none.
    """

    def __init__(self):
        self.stopping = 0
        self._received, self._in_loop = 0, False
        self._answers: collections.deque[jax.Array] = collections.deque()
        for number in NAMES:
            signal.signal(number, self)

    def __call__(self, signum, frame) -> None:
        again, self._received = self._received, signum
        if not self._in_loop:
            self._end()
        elif signum == signal.SIGINT:
            if again == signum:
                raise KeyboardInterrupt
            print("Ctrl-C: saving after this step; Ctrl-C again stops without saving", flush=True)

    def _end(self) -> None:
        name = NAMES[self._received]
        sentence = f"{name}: there is nothing to save now; the same command resumes from here"
        print(sentence)
        distributed.leave(sentence, 128 + self._received)

    def enter_loop(self) -> None:
        """From here on there is something to save."""
        self._in_loop = True

    def leave_loop(self) -> None:
        """Everything is saved."""
        self._in_loop = False
        if self._received and not self.stopping:  # it came after the last step
            self._end()

    def agreed(self, mesh: Mesh) -> bool:
        """Whether every process stops before the next step; to be called once a step, in all.

        The maximum over all devices of the signal received, read two steps later, so that all
        processes read the same answers in the same order.
        """
        if jax.process_count() == 1:
            self.stopping = self._received
        else:
            everywhere, highest = _highest(mesh)
            mine = np.full(len(mesh.local_devices), self._received, np.int32)
            self._answers.append(highest(jax.make_array_from_process_local_data(everywhere, mine)))
            if len(self._answers) > _DELAY:
                self.stopping = int(self._answers.popleft())
        return bool(self.stopping)

    def exit(self, sentence: str) -> None:
        """Print what was saved, and end the command.

        Raises:
          SystemExit: with the signal's exit code.
        """
        distributed.exchange(
            "the end of the save"
        )  # a launcher may kill the others at the first exit
        print(f"{NAMES[self.stopping]}: {sentence}", flush=True)
        raise SystemExit(128 + self.stopping)


@functools.cache
def _highest(mesh: Mesh):
    everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    return everywhere, jax.jit(lambda numbers: numbers.max(), out_shardings=whole)
