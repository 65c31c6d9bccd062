"""One writer per workdir: a second run in the same folder is refused.

The lock is `<workdir>/.lock`, which names its holder. Within a host, and on network disks that
support flock, the kernel releases it however the holder ends. Elsewhere the holder touches the file
as a heartbeat; once that stops, the lock is free. In a bucket it is `mmjax.storage.lease`.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmjax import storage
from mmjax.process import distributed
from mmjax.storage import lease, mirror

NAME = ".lock"
BEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 40.0  # without a beat


class InUseError(ValueError):
    """Another process holds the folder."""


def held(
    workdir: str | os.PathLike, flag: str = "--workdir"
) -> contextlib.AbstractContextManager[None]:
    """Hold the workdir, or another folder that a flag names, while inside; created if missing.

    Raises:
      InUseError: another run holds it (named by host, process and start).
      ValueError: the workdir cannot be written.
    """
    return (_held_in_bucket if storage.is_url(workdir) else _held_on_disk)(workdir, flag)


@contextlib.contextmanager
def _held_in_bucket(url: str, flag: str) -> Iterator[None]:
    taken = lease.take(storage.join(url, NAME), _runs)
    if not isinstance(taken, lease.Lease):
        raise _refusal(url, taken, flag)

    def lost():
        sys.stderr.write(f"error: another run has taken {url}, as this one gave no sign of life.\n")
        sys.stderr.flush()
        os._exit(2)

    taken.start(lost)
    try:
        yield
    finally:
        with contextlib.suppress(storage.StorageError):  # it is free once the beat has stopped
            taken.release()


@contextlib.contextmanager
def _held_on_disk(workdir: str | os.PathLike, flag: str) -> Iterator[None]:
    path = Path(workdir) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ValueError(
            f"Cannot write in the folder {workdir} ({error.strerror or error}): set {flag} to one "
            "that can be written."
        ) from error
    with file:
        _take(file, path, flag)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, stop), name="workdir_lock", daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            file.truncate(0)  # a free lock names no holder


@contextlib.contextmanager
def held_by_run(workdir: str | os.PathLike) -> Iterator[None]:
    """`held`, for a run of several processes: process 0 holds it, and all must see the same folder.

    Raises:
      ValueError: as `held`, or a process that sees another folder, named with its host.
    """
    with held(workdir) if distributed.is_main() else contextlib.nullcontext():
        path = storage.join(workdir, NAME)
        owner = json.dumps(_holder(path)) if distributed.is_main() else ""
        owner = distributed.exchange("the lock of the workdir", owner)[0]
        distributed.check_same("the workdir's disk", str(_sees(path, owner)))
        yield


@contextlib.contextmanager
def opened_by_run(workdir: str | os.PathLike) -> Iterator[Path]:
    """`held_by_run`, and the local folder to work in, which for a URL is a mirror of it.

    Raises:
      ValueError: as `held_by_run` and `mmjax.storage.mirror.opened`.
    """
    with held_by_run(workdir), mirror.opened(workdir, write=distributed.is_main()) as folder:
        yield folder


def _sees(path: str, owner: str, patience: float = 10) -> bool:
    """Whether the lock names this owner; waits, as a network disk may show it late."""
    until = time.monotonic() + patience
    while (seen := json.dumps(_holder(path)) == owner) is False and time.monotonic() < until:
        time.sleep(0.2)
    return seen


def _take(file: IO[str], path: Path, flag: str) -> None:
    """Take the lock of the open file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        has_flock = True
    except BlockingIOError:
        raise _refusal(path.parent, _holder(path), flag) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        has_flock = False  # a disk without it
    holder = _holder(path)
    here = holder is not None and holder["host"] == socket.gethostname()
    # On this host a free flock means that the holder has died; without flock its pid tells.
    dead = holder is None or (here and (has_flock or not _runs(holder["pid"])))
    if not dead and _beats(path):
        raise _refusal(path.parent, holder, flag)
    file.seek(0)
    file.truncate()
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "started": started}, file)
    file.flush()
    os.fsync(file.fileno())


def _refusal(folder: str | os.PathLike, holder: Mapping[str, Any] | None, flag: str) -> InUseError:
    holder = holder or {"host": "an unknown host", "pid": "?", "started": "?"}
    return InUseError(
        f"The folder {folder} is in use by process {holder['pid']} on {holder['host']}, "
        f"started {holder['started']}: wait for it to end, stop it, or use another {flag}."
    )


def _holder(path: str | os.PathLike) -> Mapping[str, Any] | None:
    if storage.is_url(path):
        return lease.holder(path)
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _beats(path: Path) -> bool:
    """Whether the file is touched while being watched; clocks of two hosts are not compared."""

    def touched() -> int:
        with path.open() as file:  # opening refreshes the attributes on a network disk
            return os.fstat(file.fileno()).st_mtime_ns

    first, until = touched(), time.monotonic() + DEAD_AFTER_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, DEAD_AFTER_SECONDS / 10))
        if touched() != first:
            return True
    return False


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
