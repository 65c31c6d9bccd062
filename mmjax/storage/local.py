"""Files of a disk, written whole or not at all: a kill or a full disk leaves the old one."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from mmjax.storage.errors import StorageError


def encoded(content: str | bytes) -> bytes:
    """UTF-8, with surrogates as \\udcff."""
    return content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file beside `path`, in a folder that is created if missing, and rename it.

    Raises:
      StorageError: it cannot be written; the old one stays.
    """
    with partial_file(path) as partial:
        _fill(partial, content)
        os.replace(partial, path)


def write_new(path: str | os.PathLike, content: str | bytes) -> bool:
    """`write`, unless there is such a file: False then."""
    with partial_file(path) as partial:
        _fill(partial, content)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def partial_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside `path`, in a folder that is created if missing, for what is to be renamed to
    it; what is left under that name is removed in the end.

    Raises:
      StorageError: for an OSError inside, such as a full disk.
    """
    path = Path(path)
    # Each of several processes and threads that write the same file has its own partial file.
    writer = f"{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}; make room, and start again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _fill(path: Path, content: str | bytes) -> None:
    """Write a file, to the disk."""
    with open(path, "wb") as file:
        file.write(encoded(content))
        file.flush()
        os.fsync(file.fileno())
