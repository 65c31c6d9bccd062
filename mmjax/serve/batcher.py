"""Many callers' single items become few calls on batches."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any


class Busy(Exception):
    """No place is free in a queue: try again soon."""


class Batcher:
    """Calls `work(items) -> results`, one a item, in a thread of its own.

    While a call runs the next items wait; all that wait, up to `most`, are the next call. So a lone
    item is not delayed, and the busier it is the larger the batches are.

    Args:
      work: what is called; if it raises, every caller of that batch gets the error.
      most: items a call; waiting: places in the queue.
    """

    def __init__(self, work: Callable[[list], Sequence], most: int, waiting: int):
        self._work, self._most = work, most
        self._queue: queue.Queue = queue.Queue(waiting)
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, item: Any) -> Future:
        """The future result of an item; a cancelled one is not worked on.

        Raises:
          Busy: all places are taken.
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
                taken.append(self._queue.get())  # no one else takes from it
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
