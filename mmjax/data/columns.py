"""A file of named arrays, memory-mapped: processes that read it share its memory.

A line of JSON (padded with spaces, with its checksum), then the arrays one after another, each at
a multiple of 64 bytes.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmjax.storage.local import partial_file
from mmjax.workdir import jsonl

_ALIGNED = 64
_LONGEST = 1 << 30  # bytes of the line of JSON

Arrays = dict[str, np.ndarray]


def write(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file, atomically."""
    kinds = {name: (array.dtype, len(array)) for name, array in arrays.items()}

    def fill(views: Arrays) -> None:
        for name, array in arrays.items():
            views[name][:] = array

    write_with(path, facts, kinds, fill)


def write_with(
    path: Path,
    facts: Mapping[str, Any],
    kinds: Mapping[str, tuple[Any, int]],
    fill: Callable[[Arrays], None],
) -> None:
    """Write a file whose arrays need not fit in memory, atomically.

    Args:
      facts: JSON values that are kept with the arrays.
      kinds: name -> dtype and length.
      fill: called with the arrays of zeros in the file, which it fills.

    Raises:
      ValueError: the disk is full; an old file stays.
    """
    places, end = {}, 0
    for name, (dtype, length) in kinds.items():
        dtype = np.dtype(dtype)
        places[name] = [dtype.str, length, end]
        end += -(-length * dtype.itemsize // _ALIGNED) * _ALIGNED
    head = {"arrays": places, "facts": facts}
    line = jsonl.line({**head, "checksum": _checksum(head)}).encode()
    line = line.ljust(-(-(len(line) + 1) // _ALIGNED) * _ALIGNED - 1) + b"\n"
    with partial_file(path) as partial:
        with partial.open("w+b") as file:
            file.write(line)
            _allocate(file, end)
            content = np.memmap(file, np.uint8, "r+")
            fill(_views(content, len(line), places))
            content.flush()
        os.replace(partial, path)


def _checksum(head: Mapping[str, Any]) -> int:
    return zlib.crc32(jsonl.line(head).encode())


def _allocate(file: BinaryIO, size: int) -> None:
    """Append zeros: a full disk is an error here, and not a signal when a page of the map is
    written."""
    zeros = bytes(min(size, 1 << 22))
    for start in range(0, size, 1 << 22):
        file.write(zeros[: size - start])
    file.flush()


def read(path: Path) -> tuple[dict[str, Any], Arrays] | None:
    """(facts, arrays) of a file; None if it is missing or damaged."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST)
            content = np.memmap(file, np.uint8, "r")
        found = json.loads(line)
        head = {"arrays": found["arrays"], "facts": found["facts"]}
        if found.get("checksum", (now := _checksum(head))) != now:
            return None
        return found["facts"], _views(content, len(line), found["arrays"])
    except Exception:  # of JSON and of NumPy's types, of any kind
        return None


def _views(content: np.ndarray, start: int, places: Mapping[str, Any]) -> Arrays:
    views, content = {}, np.asarray(content)  # whose elements are read faster than a memmap's
    for name, (kind, length, place) in places.items():
        dtype, first = np.dtype(kind), start + place
        views[name] = content[first : first + length * dtype.itemsize].view(dtype)
        if len(views[name]) != length:
            raise ValueError(f"the array '{name}' is cut off")
    return views
