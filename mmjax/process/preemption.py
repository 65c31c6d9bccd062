"""SIGTERM, which schedulers send before preemption: all processes stop after the same step."""

import collections
import functools
import signal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.process import distributed

# Steps between the reduction over devices and reading it, so that no host waits for a device.
_DELAY = 2


class Sigterm:
    """Outside the loop SIGTERM ends the run at once with exit code 0; in it, after a step.

    A signal to any one process counts for all.
    """

    def __init__(self):
        self.stopping = False  # agreed by all processes: the loop ended for this
        self._received = self._in_loop = False
        self._answers: collections.deque[jax.Array] = collections.deque()
        signal.signal(signal.SIGTERM, self)

    def __call__(self, signum, frame) -> None:
        self._received = True
        if not self._in_loop:
            self._end()

    def _end(self) -> None:
        sentence = "SIGTERM: there is nothing to save now; the same command resumes from here"
        print(sentence)
        distributed.leave(sentence, 0)

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

        A logical or over all devices of "received the signal", read two steps later, so that all
        processes read the same answers in the same order.
        """
        if jax.process_count() == 1:
            self.stopping = self._received
        else:
            everywhere, any_of = _any_of(mesh)
            mine = np.full(len(mesh.local_devices), self._received)
            self._answers.append(any_of(jax.make_array_from_process_local_data(everywhere, mine)))
            if len(self._answers) > _DELAY:
                self.stopping = bool(self._answers.popleft())
        return self.stopping


@functools.cache
def _any_of(mesh: Mesh):
    everywhere = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    return everywhere, jax.jit(lambda flags: flags.any(), out_shardings=whole)
