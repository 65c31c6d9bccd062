"""Batches the single items of many concurrent callers."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any


class Busy(Exception):
    """The queue is full: try again soon."""


class Batcher:
    """Calls `work(items) -> results`, with one result per item, in a background thread.

    Items that arrive during a call wait, and form the next batch (up to `most` items). So a single
    item is not delayed, and batches grow with the load.

    Args:
      work: the function; if it raises, every caller of that batch gets the error.
      most: maximum number of items per call; waiting: size of the queue.
    """

    def __init__(self, work: Callable[[list], Sequence], most: int, waiting: int):
        self._work, self._most = work, most
        self._queue: queue.Queue = queue.Queue(waiting)
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, item: Any) -> Future:
        """The future result of an item; cancelled items are skipped.

        Raises:
          Busy: the queue is full.
        """
        future: Future = Future()
        try:
            self._queue.put_nowait((item, future))
        except queue.Full:
            raise Busy from None
        return future

    def _run(self) -> None:
        while True:
            taken = [self._queue.get()]
            while len(taken) < self._most and not self._queue.empty():
                taken.append(self._queue.get())  # does not block: this is the only consumer
            batch = [(i, f) for i, f in taken if f.set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                results = self._work([item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
