"""A bounded cache, on the local disk, of blocks of objects in buckets.

A block is a file of the cache, named by the object's URL, its version and the block's place, so
that an object that is written again has other blocks. Processes may share the folder. Once the
blocks have more bytes than the limit, those that were not used for longest are removed.
"""

import collections
import contextlib
import hashlib
import os
import threading
from pathlib import Path

from mmjax.storage import files
from mmjax.storage.local import partial_file

BLOCK = 4 << 20  # bytes that are read by one request
_SWEPT = 16  # blocks that a process writes until it looks at the size of all


class Blocks:
    """The cache. Thread-safe.

    Args:
      folder: of the blocks; created if missing.
      limit: bytes of all blocks, which may be exceeded by `_SWEPT` blocks of each process.
    """

    def __init__(self, folder: Path, limit: int):
        self._given = (folder, limit)
        self._folder, self._limit, self._written = folder, limit, 0
        self._lock = threading.Lock()
        self._reading = collections.defaultdict[Path, threading.Lock](threading.Lock)
        folder.mkdir(parents=True, exist_ok=True)

    def __reduce__(self):
        """Another process shares the folder."""
        return Blocks, self._given

    def read(self, url: str, stat: files.Stat, offset: int, size: int) -> bytes:
        """`size` bytes of an object from `offset` on.

        Raises:
          ChangedFileError: a block is missing, and the object is of another version by now.
        """
        parts, end = [], min(offset + size, stat.size)
        for number in range(offset // BLOCK, -(-end // BLOCK)):
            start = number * BLOCK
            first, last = max(offset, start) - start, min(end, start + BLOCK) - start
            parts.append(self._part(url, stat, start, first, last))
        return b"".join(parts)

    def _part(self, url: str, stat: files.Stat, start: int, first: int, last: int) -> bytes:
        """Bytes `first` to `last` of the block from `start` on."""
        name = hashlib.sha256(f"{url}\0{stat.version}\0{start}".encode()).hexdigest()[:32]
        path, length = self._folder / name, min(BLOCK, stat.size - start)
        found = _read(path, length, first, last)
        if found is not None:
            return found
        with self._lock:
            lock = self._reading[path]
        with lock:
            found = _read(path, length, first, last)  # by another thread meanwhile
            if found is None:
                block = files.read_version(url, stat.version, start, length)
                with contextlib.suppress(files.StorageError, OSError):  # the disk is full
                    with partial_file(path) as partial:
                        partial.write_bytes(block)
                        os.replace(partial, path)
                    self._sweep()
                found = block[first:last]
        with self._lock:
            self._reading.pop(path, None)
        return found

    def _sweep(self) -> None:
        """Remove blocks above the limit, now and then."""
        with self._lock:
            self._written += 1
            if self._written % _SWEPT:
                return
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # by another process
                    stat = entry.stat()
                    found.append((stat.st_mtime_ns, stat.st_size, entry.path))
        over = sum(size for _, size, _ in found) - self._limit
        for _, size, path in sorted(found):
            if over <= 0:
                return
            Path(path).unlink(missing_ok=True)
            over -= size


def _read(path: Path, length: int, first: int, last: int) -> bytes | None:
    """Bytes `first` to `last` of a block in the cache; None if it is missing or not whole."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if os.fstat(file).st_size != length:
            return None
        os.utime(file)  # used now
        return os.pread(file, last - first, first)
    finally:
        os.close(file)
