"""Files that disappear during a run: reported, counted, and skipped up to a limit.

The order of the examples does not change until the run is restarted. Then the source has fewer
records and their order differs, which `data_manifest.check_examples` reports; restoring the files
restores the order.
"""

import logging
import threading

from mmjax.data.bad_records import most_allowed

_log = logging.getLogger(__name__)


class LostRecords:
    """Records of a source that have become unreadable since it was opened. Thread-safe.

    Args:
      source: its name; total: its number of records.
      limit: maximum number lost in this process: a count (int) or a fraction of `total` (float).
    """

    def __init__(self, source: str, total: int, limit: int | float):
        self._source, self._total, self._limit = source, total, limit
        self._most = most_allowed(limit, total, "config.data.max_lost_records")
        self._lost: set[int] = set()
        self._lock = threading.Lock()

    def __reduce__(self):
        """Another process counts its own."""
        return LostRecords, (self._source, self._total, self._limit)

    def add(self, index: int, error: OSError) -> None:
        """Count a lost record; logs a warning whenever the count reaches a power of two.

        Raises:
          ValueError: more lost records than the limit; names the file.
        """
        with self._lock:
            new = index not in self._lost
            self._lost.add(index)
            count = len(self._lost)
        what = f"Example number {index} of {self._source} has disappeared during the run ({error})"
        if count > self._most:
            raise ValueError(
                f"{what}: {count} lost of {self._total}, and config.data.max_lost_records = "
                f"{self._limit} allows {self._most}; restore the file and restart, or raise that "
                "limit (the next record then replaces each lost one)."
            ) from error
        if new and count & (count - 1) == 0:
            _log.warning("%s; the next record replaces it (%d lost so far)", what, count)
