"""The lines of an index's list of files, by row, so that a query reads only those of its results.

`rows-G-SIZE.npy` belongs to the first SIZE bytes of `files-G.jsonl`: another size, and it is not
used. For every file with an image: its row, and where its line begins; by row and path.
"""

import json
from pathlib import Path

import numpy as np


def write(folder: Path, generation: int) -> None:
    """Write the lookup of an index; those of earlier lists are deleted."""
    files = _files(folder, generation)
    lines: dict[str, tuple[int | None, int]] = {}
    start = 0
    with files.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                found = json.loads(line)
                lines[found["path"]] = (found.get("row"), start)
                start += len(line)
    rows = sorted((row, path, at) for path, (row, at) in lines.items() if row is not None)
    new = _path(folder, generation, start)
    for old in set(folder.glob("rows-*.npy")) - {new}:
        old.unlink()
    partial = new.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.asarray([(row, at) for row, _, at in rows], np.int64).reshape(-1, 2))
    partial.replace(new)


class Lookup:
    """Paths of rows.

    Args:
      generation: of the index.

    Raises:
      OSError, ValueError: there is none of the list of files as it is now.
    """

    def __init__(self, folder: Path, generation: int):
        self._files = _files(folder, generation)
        path = _path(folder, generation, self._files.stat().st_size)
        try:
            found = np.load(path, "r")
            self._rows, self._starts = found.T
            if found.dtype != np.int64 or (found < 0).any() or (np.diff(self._rows) < 0).any():
                raise ValueError("other numbers")
        except Exception as error:  # NumPy's, of a damaged header, are of any kind
            if isinstance(error, OSError):
                raise
            raise ValueError(f"{path} is damaged ({error}): delete it.") from None

    def rows(self) -> np.ndarray:
        """The rows that have a file, ascending."""
        return np.unique(self._rows)

    def paths(self, row: int) -> list[str]:
        """The files with the image of a row, by path."""
        first, last = np.searchsorted(self._rows, (row, row + 1))
        found = []
        with self._files.open("rb") as file:
            for start in self._starts[first:last]:
                file.seek(int(start))
                line = file.readline()
                try:
                    found.append(json.loads(line)["path"])
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise ValueError(
                        f"{self._files} has no file at byte {start}: index again."
                    ) from None
        return found


def _files(folder: Path, generation: int) -> Path:
    return folder / f"files-{generation}.jsonl"


def _path(folder: Path, generation: int, size: int) -> Path:
    return folder / f"rows-{generation}-{size}.npy"
