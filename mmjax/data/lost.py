"""Files that vanish while a run reads them: named, counted, and passed over up to a limit.

The order stays until the run is started again. Then the source has fewer records, and what is left
comes in another order: `experiment.check_examples` says so. With the file back it is the old order.
"""

import logging
import threading

from mmjax.data.bad_records import most_allowed

_log = logging.getLogger(__name__)


class LostRecords:
    """The records of a source that can no longer be read, though they could when it was opened.

    Args:
      source: its name; total: its records.
      limit: the most that may be lost in this process: a count (int) or a share of `total` (float).

    Threads may share one.
    """

    def __init__(self, source: str, total: int, limit: int | float):
        self._source, self._total, self._limit = source, total, limit
        self._most = most_allowed(limit, total, "config.data.max_lost_records")
        self._lost: set[int] = set()
        self._lock = threading.Lock()

    def add(self, index: int, error: OSError) -> None:
        """Count a record; the first and every further power of two of them is warned of.

        Raises:
          ValueError: more than the limit, naming the file.
        """
        with self._lock:
            new = index not in self._lost
            self._lost.add(index)
            count = len(self._lost)
        what = f"Example number {index} of {self._source} is gone while the run goes on ({error})"
        if count > self._most:
            raise ValueError(
                f"{what}: {count} lost of {self._total}, and config.data.max_lost_records = "
                f"{self._limit} allows {self._most}; bring the file back and start again, or raise "
                "that limit, and the next record takes the place of a lost one."
            ) from error
        if new and count & (count - 1) == 0:
            _log.warning("%s; the next record takes its place (%d lost so far)", what, count)
