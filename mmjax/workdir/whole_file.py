"""Files that are written whole or not at all: a kill or a full disk leaves the old one."""

import os
import socket
from pathlib import Path


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file beside `path`, in a folder that is created if missing, and rename it.

    Surrogates, as in file names that are not UTF-8, are written as \\udcff: in JSON its escapes.

    Raises:
      ValueError: it cannot be written; the old one stays.
    """
    path = Path(path)
    # Each of several processes that write the same file has its own partial file.
    partial = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode("utf-8", "backslashreplace")
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ValueError(
            f"Cannot write {path}: {error.strerror or error}; make room, and start again."
        ) from error
