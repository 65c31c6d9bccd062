"""The data cache: where prepared data and the results of checks on raw data are stored."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax import storage
from mmjax.workdir import jsonl


def data_root(data_dir: str | os.PathLike | None = None) -> Path:
    """`data_dir`, else the environment's MMJAX_DATA_DIR, else ~/.cache/mmjax/data; created."""
    root = data_dir or os.environ.get("MMJAX_DATA_DIR") or "~/.cache/mmjax/data"
    path = Path(root).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The data directory {path} cannot be created ({error.strerror}): "
            "set data_dir in the config or MMJAX_DATA_DIR to a directory that can be written."
        ) from error
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock: one process builds while the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    storage.write(path, jsonl.line(value))


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None if the file is missing or invalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
