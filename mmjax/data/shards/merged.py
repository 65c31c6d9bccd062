"""The index of a set of shards: that of each shard concatenated, opened at once.

Per record it has 12 bytes, which processes share: the place and size of its image, and the place of
its key and captions in the index of its shard. Records whose key was used before are left out.
"""

import collections
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mmjax.data import columns
from mmjax.data.cache import data_root
from mmjax.data.shards.build import Settings, build, file_name, read_index
from mmjax.data.shards.index import text_of
from mmjax.data.shards.pattern import Shard
from mmjax.data.tar_headers import BLOCK

_SORTED = 1 << 24  # hashes that are sorted at once
_OPEN_SHARDS = 64  # whose texts stay open
_SHORT = 256  # bytes of a text that are read at first
_COLUMNS = ("block", "size", "text")  # of a record, side by side: on one page of the file

Opened = tuple[dict[str, Any], columns.Arrays]


class Place(NamedTuple):
    """Where the image or video of a record is."""

    shard: Shard
    offset: int
    size: int


class Merged:
    """The records of a set of shards, in their order.

    Attributes:
      facts: `bad`, [key, kind, reason] of records that are left out; `skipped`, the number of files
        that are not read; `several`, [number of records whose only text has several lines, the key
        of the first].
    """

    def __init__(self, cache: Path, shards: Sequence[Shard], settings: Settings, found: Opened):
        self.facts, arrays = found
        self.shards, self.settings, self.cache = shards, settings, cache
        self._ends = np.array(arrays["ends"])
        self._records = arrays["records"].reshape(-1, len(_COLUMNS))
        self._open = functools.lru_cache(maxsize=_OPEN_SHARDS)(self.index_of)

    def __reduce__(self):
        """Another process maps the same files."""
        return _opened_again, (self.cache, self.shards, self.settings)

    def __len__(self) -> int:
        return len(self._records)

    def place(self, index: int) -> Place:
        """Where the image or video of a record is."""
        shard = self.shards[self._shard_of(index)]
        block, size, _ = self._records[index].tolist()
        return Place(shard, block * BLOCK, size)

    def text(self, index: int) -> tuple[str, list[str]]:
        """The key and the captions of a record.

        Raises:
          OSError: the shard has been changed and indexed again since.
          ValueError: the index is damaged.
        """
        shard = self._shard_of(index)
        texts = self._open(shard)["texts"]
        return text_at(texts, int(self._records[index, 2]), self.shards[shard], self.cache)

    def rows(self, shard: int) -> range:
        """The records of a shard."""
        return range(int(self._ends[shard - 1]) if shard else 0, int(self._ends[shard]))

    def index_of(self, shard: int) -> columns.Arrays:
        """The arrays of a shard's own index, also of its records that are left out here.

        Raises:
          OSError: the shard has been changed and indexed again since.
        """
        found = read_index(self.cache, self.shards[shard], self.settings)
        if found is None:
            raise OSError(f"The shard {self.shards[shard].path} has been indexed again since")
        return found[1]

    def _shard_of(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} records, and none is numbered {index}")
        return int(np.searchsorted(self._ends, index, side="right"))


def text_at(texts: np.ndarray, start: int, shard: Shard, cache: Path) -> tuple[str, list[str]]:
    """The key and the captions at a place of the texts of a shard's index.

    Raises:
      ValueError: the index is damaged.
    """
    length = _SHORT
    while True:
        line, newline, _ = texts[start : start + length].tobytes().partition(b"\n")
        found = text_of(line) if newline else None
        if found is not None:
            return found
        if newline or start + length >= len(texts):
            raise ValueError(
                f"The index of {shard.path} in {cache} is damaged: delete that folder, and start "
                "again."
            )
        length *= 8


def cache_folder(data_dir: str | os.PathLike | None = None) -> Path:
    """Where indexes are, in the data cache."""
    return data_root(data_dir) / "shard_index"


def open_merged(pattern: str, shards: Sequence[Shard], settings: Settings, cache: Path) -> Merged:
    """The index of the shards; what is missing is built.

    Raises:
      ValueError: a shard that cannot be read.
    """
    found = read_merged(cache, shards, settings)
    if found is None:
        build(pattern, shards, settings, cache)
        _merge(shards, settings, cache)
        return _opened_again(cache, shards, settings)
    return Merged(cache, shards, settings, found)


def _opened_again(cache: Path, shards: Sequence[Shard], settings: Settings) -> Merged:
    found = read_merged(cache, shards, settings)
    if found is None:
        raise ValueError(
            f"The index of {shards[0].path} and others has been changed meanwhile: start again."
        )
    return Merged(cache, shards, settings, found)


def _file(cache: Path, shards: Sequence[Shard], settings: Settings) -> Path:
    return cache / f"{file_name(shards, settings)}.merged"


def read_merged(cache: Path, shards: Sequence[Shard], settings: Settings) -> Opened | None:
    """(facts, arrays) of the index of some shards; None if it is missing or of another state."""
    found = columns.read(_file(cache, shards, settings))
    if found is None or found[0]["state"] != state_of(shards, settings):
        return None
    ends, records = (np.asarray(found[1][name]) for name in ("ends", "records"))
    total = len(records) // len(_COLUMNS)
    whole = len(ends) == len(shards) and ends[-1] == total and (np.diff(ends, prepend=0) >= 0).all()
    return found if whole else None


def state_of(shards: Sequence[Shard], settings: Settings) -> list[str]:
    """What the index of some shards is for."""
    states = "\n".join(f"{shard.size} {shard.version}" for shard in shards)
    return [*settings.state(), hashlib.sha256(states.encode()).hexdigest()]


def _merge(shards: Sequence[Shard], settings: Settings, cache: Path) -> None:
    """Write the merged index; memory does not grow with the number of records."""
    counts, bad, skipped = [], [], collections.Counter()
    several, first_several = 0, ""
    with tempfile.TemporaryFile(dir=cache) as hashes:
        for shard in shards:
            facts, arrays = index_of(cache, shard, settings)
            counts.append(len(arrays["hash"]))
            hashes.write(arrays["hash"].tobytes())
            bad += facts["bad"]
            skipped.update(facts["skipped"])
            several += facts["several"][0]
            first_several = first_several or facts["several"][1]
        rows = _equal_hashes(hashes, sum(counts))
    ends = np.cumsum(counts, dtype=np.int64)
    dropped = _duplicates(rows, ends, shards, settings, cache, bad)

    def fill(views: columns.Arrays) -> None:
        views["ends"][:] = ends - np.searchsorted(dropped, ends)
        records, to = views["records"].reshape(-1, len(_COLUMNS)), 0
        for shard, count, end in zip(shards, counts, ends, strict=True):
            _, arrays = index_of(cache, shard, settings)
            first, last = np.searchsorted(dropped, (end - count, end))
            left = np.delete(np.arange(count), dropped[first:last] - (end - count))
            for column, name in enumerate(_COLUMNS):
                records[to : to + len(left), column] = arrays[name][left]
            to += len(left)

    total = int(sum(counts)) - len(dropped)
    facts = {
        "state": state_of(shards, settings),
        "bad": bad,
        "skipped": dict(skipped),
        "several": [several, first_several],
    }
    kinds = {"ends": (np.int64, len(shards)), "records": (np.uint32, total * len(_COLUMNS))}
    columns.write_with(_file(cache, shards, settings), facts, kinds, fill)


def index_of(cache: Path, shard: Shard, settings: Settings) -> Opened:
    """(facts, arrays) of a shard's index, which has been built.

    Raises:
      ValueError: it has disappeared.
    """
    found = read_index(cache, shard, settings)
    if found is None:
        raise ValueError(f"The index of {shard.path} has disappeared meanwhile: start again.")
    return found


def _equal_hashes(file: BinaryIO, count: int) -> np.ndarray:
    """The records whose hash another one has too, ascending.

    Sorts the hashes part by part, by their first bits.
    """
    if not count:
        return np.zeros(0, np.int64)
    file.flush()
    hashes = np.memmap(file, np.uint64, "r")
    bits = max(0, (count // _SORTED).bit_length())
    equal = []
    for part in range(1 << bits):
        mine = [
            piece[piece >> np.uint64(64 - bits) == part] if bits else piece
            for piece in _pieces(hashes)
        ]
        ordered = np.sort(np.concatenate(mine))
        equal.append(ordered[1:][ordered[1:] == ordered[:-1]])
    equal = np.unique(np.concatenate(equal))
    if not len(equal):
        return np.zeros(0, np.int64)
    starts = range(0, count, _SORTED)
    found = zip(starts, _pieces(hashes), strict=True)
    return np.concatenate([start + np.flatnonzero(np.isin(piece, equal)) for start, piece in found])


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[i : i + _SORTED] for i in range(0, len(array), _SORTED))


def _duplicates(
    rows: np.ndarray,
    ends: np.ndarray,
    shards: Sequence[Shard],
    settings: Settings,
    cache: Path,
    bad: list[list[str]],
) -> np.ndarray:
    """Of records with equal hashes, those whose key was used before, ascending; adds to `bad`."""
    first_with: dict[str, Shard] = {}
    dropped, opened = [], None
    for row, number in zip(rows.tolist(), np.searchsorted(ends, rows, side="right").tolist()):
        shard = shards[number]
        if opened is None or opened[0] is not shard:
            opened = shard, index_of(cache, shard, settings)[1]
        arrays, start = opened[1], int(ends[number]) - len(opened[1]["text"])
        key, _ = text_at(arrays["texts"], int(arrays["text"][row - start]), shard, cache)
        if key in first_with:
            reason = f"it is in {first_with[key].name} and again in {shard.name}"
            bad.append([key, "duplicate_key", reason])
            dropped.append(row)
        else:
            first_with[key] = shard
    return np.array(dropped, np.int64)
