"""Prefetching: host batches are copied to the devices ahead of use, in a background thread."""

import queue
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mmjax.batch import to_device_dtypes

_END = object()
POLL_SECONDS = 0.005  # how often to look whether the device has finished, while waiting
PATIENCE = 30.0  # seconds that `close` waits for a read in progress


class prefetch_to_device:
    """Iterator over device batches, made from host batches by a background thread.

    Args:
      batches: dicts of arrays, this process's rows of each global batch.
      sharding: of every array of a batch (its first axis is split).
      size: batches prefetched to the device.
      busy: whether the device still has work; None: never.

    `wait_seconds` is the total time that the consumer has waited for data while the device was
    idle: a loop that is ahead of the device waits without harm. An error in the thread is raised in
    the consumer, after the batches made before it. `close()` ends the thread; the
    object is also a context manager.
    """

    def __init__(
        self,
        batches: Iterator[dict[str, np.ndarray]],
        sharding: jax.sharding.Sharding,
        size: int = 2,
        busy: Callable[[], bool] | None = None,
    ):
        self.wait_seconds = 0.0
        self._busy = busy or (lambda: False)
        self._batches, self._sharding = batches, sharding
        self._ready: queue.Queue = queue.Queue(maxsize=size)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch_to_device", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for batch in self._batches:
                if not self._put((to_device(batch, self._sharding), None)):
                    return
            self._put((_END, None))
        except BaseException as error:  # of any kind: the consumer must not wait forever
            self._put((_END, error))

    def _put(self, item: tuple) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> "prefetch_to_device":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        if self._closed.is_set():
            raise StopIteration
        batch, error = self._next()
        if batch is _END:
            self.close()
            if error is not None:
                raise error
            raise StopIteration
        return batch

    def _next(self) -> tuple:
        while self._busy():
            try:
                return self._ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
        start = time.perf_counter()
        item = self._ready.get()
        self.wait_seconds += time.perf_counter() - start
        return item

    def close(self) -> None:
        """End the thread and the batches' own threads; prefetched batches are dropped.

        A read that hangs is abandoned: the run's last save must not wait for it.
        """
        self._closed.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            return
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> "prefetch_to_device":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def to_device(
    batch: dict[str, np.ndarray], sharding: jax.sharding.Sharding
) -> dict[str, jax.Array]:
    """A host batch as global arrays: this process's rows become its part of the global batch."""
    return {
        key: jax.make_array_from_process_local_data(sharding, value)
        for key, value in to_device_dtypes(batch).items()
    }
