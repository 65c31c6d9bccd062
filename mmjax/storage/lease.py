"""A lock in a bucket: numbered objects, each of which only one of several writers can create.

The holder is who created the highest number. It rewrites its object as a heartbeat; once that
stops, the next writer creates the next number. A holder that finds a number above its own has lost
the lock.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from mmjax.storage import files
from mmjax.storage.errors import StorageError

BEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0  # without a beat: a request may be repeated for half a minute

Holder = Mapping[str, Any]  # host, pid, started, id


def holder(folder: str) -> Holder | None:
    """Who has the lock, or had it when it died; None: nobody."""
    number = _newest(folder)
    return _read(folder, number) if number else None


def take(folder: str, runs: Callable[[int], bool]) -> "Lease | Holder":
    """The lock, or who has it; watches for a while whether that holder still beats.

    Args:
      folder: the lock's folder in a bucket.
      runs: whether there is a process of this id on this host.

    Raises:
      StorageError: the bucket cannot be read or written.
    """
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "id": uuid.uuid4().hex,
    }
    while True:
        number = _newest(folder)
        if number:
            found = _read(folder, number)
            here = found is not None and found["host"] == mine["host"]
            if found and (not here or runs(found["pid"])) and _beats(_path(folder, number)):
                return found
            if not found or _read(folder, number) != found:  # released, and perhaps taken again
                continue
        files.write_new(_path(folder, number + 1), json.dumps(mine))
        if _read(folder, number + 1) == mine:  # else another one has just taken it
            for path in files.listing(folder):
                if path < _path(folder, number + 1):
                    files.remove(path)
            return Lease(folder, number + 1, mine)


class Lease:
    """A lock that is held, with its heartbeat."""

    def __init__(self, folder: str, number: int, mine: Holder):
        self._folder, self._number, self._mine = folder, number, mine
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, lost: Callable[[], None]) -> None:
        """Start to beat; `lost` is called, from another thread, once another writer has it."""

        def beat():
            beats = 0
            while not self._done.wait(BEAT_SECONDS):
                beats += 1
                try:
                    if _newest(self._folder) > self._number:
                        lost()
                        return
                    # In s3 the version of the same content is the same.
                    content = json.dumps({**self._mine, "beats": beats})
                    files.write(_path(self._folder, self._number), content)
                except StorageError:  # by the next beat the bucket may be back
                    continue

        self._thread = threading.Thread(target=beat, name="mmjax.storage.lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop to beat and give the lock back."""
        self._done.set()
        self._thread.join()
        files.remove(_path(self._folder, self._number))


def _path(folder: str, number: int) -> str:
    return files.join(folder, f"{number:09d}")


def _newest(folder: str) -> int:
    names = (path.rpartition("/")[2] for path in files.listing(folder))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _read(folder: str, number: int) -> Holder | None:
    try:
        found = json.loads(files.read(_path(folder, number)))
    except FileNotFoundError:  # released meanwhile
        return None
    found.pop("beats", None)
    return found


def _beats(path: str) -> bool:
    """Whether the object is written anew while being watched."""

    def version():
        try:
            return files.stat(path).version
        except FileNotFoundError:  # released
            return None

    first, until = version(), time.monotonic() + DEAD_AFTER_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, DEAD_AFTER_SECONDS / 10))
        now = version()
        if now is None:
            return False
        if now != first:
            return True
    return False
