"""Files that are written whole or not at all: a kill or a full disk leaves the old one."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file beside `path`, in a folder that is created if missing, and rename it.

    Surrogates, as in file names that are not UTF-8, are written as \\udcff: in JSON its escapes.

    Raises:
      ValueError: it cannot be written; the old one stays.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with opened(path) as file:
        file.write(content)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file, for reading and writing, that becomes `path` when the context is left without error.

    Raises:
      ValueError: it cannot be written; the old one stays.
    """
    path = Path(path)
    # Each of several processes that write the same file has its own partial file.
    partial = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(
            f"Cannot write {path}: {error.strerror or error}; make room, and start again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
