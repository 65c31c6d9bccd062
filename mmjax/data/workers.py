"""Rows made in other processes, for transforms that hold the interpreter lock.

Worker `w` of `W` makes the chunks `w`, `w + W`, ... and the results are interleaved again, so the
data do not depend on the number of workers. Source and transforms are sent to each once.
"""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
from absl import flags

AHEAD = 4  # chunks that each worker makes ahead of use
POLL_SECONDS = 2.0


def in_processes(
    chunks: grain.MapDataset, count: int, in_batch: int, join: Callable[[Sequence[Any]], Any]
) -> Iterator[Any]:
    """Batches of `in_batch` chunks, which `count` processes make.

    Args:
      join: the chunks of a batch -> the batch.

    Raises:
      ValueError: while iterating, what a worker raises, or a worker was killed.
    """
    if not flags.FLAGS.is_parsed():  # grain reads its own flags, and mmjax parses none of absl's
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=AHEAD)
    one = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    made = chunks.to_iter_dataset(one).mp_prefetch(options, _Start(os.getpid()))
    with contextlib.closing(iter(made.batch(in_batch, batch_fn=join))) as batches:
        try:
            yield from batches
        except ValueError as error:  # raised here, it is ours: see process/command.py
            raise ValueError(str(error)) from error
        except RuntimeError as error:
            code = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
            if code is None:
                raise
            raise ValueError(
                f"A worker process of the input pipeline was killed (exit code {code[1]}): if "
                "memory ran out, lower config.data.num_workers."
            ) from error


class _Start:
    """What a worker does first: it leaves signals to the process that trains, and ends with it."""

    def __init__(self, parent: int):
        self._parent = parent

    def __call__(self, index: int, count: int) -> None:
        os.environ["JAX_PLATFORMS"] = "cpu"  # an accelerator belongs to the process that trains
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)
