"""Work of the event loop that is done in a thread, one job at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmjax.serve.batcher import Busy


class Jobs:
    """A thread, and up to `most` jobs in it or waiting for it."""

    def __init__(self, most: int):
        self._most, self._inside = most, 0
        self._thread = ThreadPoolExecutor(1)

    async def run(self, work: Callable, *args: Any) -> Any:
        """The result of `work(*args)`; a job whose caller has gone is not begun.

        Raises:
          Busy: too many wait already.
        """
        if self._inside >= self._most:
            raise Busy
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        finally:
            self._inside -= 1
