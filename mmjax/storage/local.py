"""Files of a disk, written whole or not at all: a kill or a full disk leaves the old one."""

import contextlib
import os
import socket
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
    with _partial(Path(path), content) as partial:
        os.replace(partial, path)


def write_new(path: str | os.PathLike, content: str | bytes) -> bool:
    """`write`, unless there is such a file: False then."""
    with _partial(Path(path), content) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def _partial(path: Path, content: str | bytes):
    """A file beside `path` with the content, on the disk, which is removed in the end."""
    # Each of several processes that write the same file has its own partial file.
    partial = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(encoded(content))
            file.flush()
            os.fsync(file.fileno())
        yield partial
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}; make room, and start again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
