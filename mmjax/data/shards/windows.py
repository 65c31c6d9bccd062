"""Shards that are read in windows: training starts when those of the first window are indexed.

Order. The shards are in a fixed shuffled order, in which their records are numbered. An epoch goes
through windows of W shards that follow each other, and through all records of a window in an order
of its own: a permutation from (seed, epoch, window). The first epoch takes the shards as they are
numbered, each later one in another order, from (seed, epoch). So the record at a position depends
on the seed and the shards alone, and in the first epoch on no shard after its window; a later epoch
begins when the index is complete.

Records are those of the indexes of single shards: a key that is used in several shards names
several records.
"""

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from grain.experimental import index_shuffle

from mmjax.data import columns
from mmjax.data.shards import build
from mmjax.data.shards.merged import Place, index_of, state_of, text_at
from mmjax.data.shards.pattern import Shard, shuffled
from mmjax.data.tar_headers import BLOCK

Entered = Callable[[Sequence[list[str]], int, bool], None]

_ahead: set[Path] = set()  # the sets of shards that this process has started to index ahead


class Windows:
    """The records of shards, of which windows are indexed as they are needed. Thread-safe.

    Args:
      window: W, in shards.
      entered: called with the bad records found so far, [key, kind, reason], the number of all
        records so far, and whether it is the last one, whenever a window has been indexed.

    Attributes:
      ready: the number of records of the first window.
      several: of those, the ones whose only text has several lines, and the key of the first.

    Raises:
      ValueError: a shard of the first window that cannot be read.
    """

    def __init__(
        self,
        pattern: str,
        shards: Sequence[Shard],
        settings: build.Settings,
        cache: Path,
        window: int,
        entered: Entered,
    ):
        self.settings, self._pattern, self._cache = settings, pattern, cache
        self._given, self._window, self._entered = shards, window, entered
        self.shards = [shards[i] for i in shuffled(len(shards))]
        self._ends = np.zeros(len(shards), np.int64)  # of those indexed so far
        self._known = 0  # their number
        self._bad: list[list[str]] = []
        self._several: list[Any] = []
        self._lock = threading.Lock()
        self._open = functools.lru_cache(maxsize=2 * window + 16)(self._index_of)
        self._order = functools.lru_cache(maxsize=2)(self._order_of)
        found = _read(cache, shards, settings, window)
        if found is not None:
            self._ends, self._known = np.array(found[1]["ends"]), len(shards)
            self._bad, self._several = found[0]["bad"], found[0]["several"]
            entered(self._bad, int(self._ends[-1]) + len(self._bad), True)
        self._reach(-1)
        self.ready, self.several = int(self._ends[: self._known][:window][-1]), self._several

    def __len__(self) -> int:
        if self._known < len(self.shards):
            build.build(self._pattern, self._given, self.settings, self._cache)
            while self._known < len(self.shards):
                self._reach(int(self._ends[self._known - 1]))
        return int(self._ends[-1])

    @property
    def total(self) -> int | None:
        """The number of records; None until all shards are indexed."""
        return int(self._ends[-1]) if self._known == len(self.shards) else None

    def place(self, index: int) -> Place:
        """Where the image or video of a record is."""
        shard, record = self._locate(index)
        arrays = self._open(shard)
        return Place(
            self.shards[shard], int(arrays["block"][record]) * BLOCK, int(arrays["size"][record])
        )

    def text(self, index: int) -> tuple[str, list[str]]:
        """The key and the captions of a record.

        Raises:
          OSError: the shard has been changed and indexed again since.
          ValueError: the index is damaged.
        """
        shard, record = self._locate(index)
        arrays = self._open(shard)
        return text_at(
            arrays["texts"], int(arrays["text"][record]), self.shards[shard], self._cache
        )

    def index_at(self, seed: int, position: int) -> int:
        """The record at a position of training; see the module's docstring."""
        self._reach(position)
        known = self._known
        total = int(self._ends[known - 1])
        epoch, place = (0, position) if position < total else divmod(position, total)
        shards, ends = self._order(seed, epoch)
        ends = ends[:known]
        first = int(np.searchsorted(ends, place, side="right")) // self._window * self._window
        start = int(ends[first - 1]) if first else 0
        last = int(ends[first : first + self._window][-1]) - 1
        mixed = _seed_of(seed, epoch, first)
        place = start + index_shuffle(place - start, last - start, seed=mixed, rounds=4)
        rank = int(np.searchsorted(ends, place, side="right"))
        shard = int(shards[rank])
        return place - _start(ends, rank) + _start(self._ends, shard)

    def size_at(self, position: int) -> int:
        """The number of records of the windows up to that of a position of the first epoch; of a
        later position that of all."""
        self._reach(position)
        ends = self._ends[: self._known]
        first = int(np.searchsorted(ends, position, side="right")) // self._window * self._window
        return int(ends[: first + self._window][-1])

    def following(self, index: int) -> int:
        """The record after another one, in their numbering; after the last one the first."""
        self._reach(index + 1)
        return index + 1 if index + 1 < self._ends[self._known - 1] else 0

    def _reach(self, position: int) -> None:
        """Index windows until there is a record of this number, or all are indexed."""
        while not self._reaches(position):
            with self._lock:
                if not self._reaches(position):
                    self._enter()

    def _reaches(self, position: int) -> bool:
        known = self._known
        return known == len(self.shards) or (known > 0 and position < self._ends[known - 1])

    def _enter(self) -> None:
        """Index the next window."""
        first = self._known
        some = self.shards[first : first + self._window]
        # From its end: who indexes ahead begins at its start.
        build.build_missing(self._pattern, some[::-1], self.settings, self._cache)
        end, bad = _start(self._ends, first), list(self._bad)
        for number, shard in enumerate(some, first):
            facts, arrays = index_of(self._cache, shard, self.settings)
            end += len(arrays["hash"])
            self._ends[number] = end
            bad += facts["bad"]
            if not first:
                count, key = self._several or (0, "")
                self._several = [count + facts["several"][0], key or facts["several"][1]]
        known = first + len(some)
        self._entered(bad, end + len(bad), known == len(self.shards))  # may refuse, each time
        self._bad, self._known = bad, known
        if known == len(self.shards):
            state = _state(self._given, self.settings, self._window)
            facts = {"state": state, "bad": self._bad, "several": self._several}
            path = _file(self._cache, self._given, self.settings)
            columns.write(path, facts, {"ends": self._ends})

    def _locate(self, index: int) -> tuple[int, int]:
        """The number of a record's shard, and its own there."""
        self._reach(index)
        ends = self._ends[: self._known]
        if not 0 <= index < ends[-1]:
            raise IndexError(f"there are {ends[-1]} records, and none is numbered {index}")
        shard = int(np.searchsorted(ends, index, side="right"))
        return shard, index - _start(ends, shard)

    def _index_of(self, shard: int) -> columns.Arrays:
        found = build.read_index(self._cache, self.shards[shard], self.settings)
        if found is None:
            raise OSError(f"The shard {self.shards[shard].path} has been indexed again since")
        return found[1]

    def _order_of(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards of an epoch in their order, and the number of records up to each."""
        if epoch == 0:
            return np.arange(len(self.shards)), self._ends
        order = shuffled(len(self.shards), f"{seed} {epoch}")
        return order, np.diff(self._ends, prepend=0)[order].cumsum()


def _start(ends: np.ndarray, number: int) -> int:
    return int(ends[number - 1]) if number else 0


@functools.lru_cache(maxsize=16)
def _seed_of(seed: int, epoch: int, first: int) -> int:
    words = hashlib.blake2b(f"{seed} {epoch} {first}".encode(), digest_size=4)
    return int.from_bytes(words.digest(), "little")


def _file(cache: Path, shards: Sequence[Shard], settings: build.Settings) -> Path:
    return cache / f"{build.file_name(shards, settings)}.windows"


def _state(shards: Sequence[Shard], settings: build.Settings, window: int) -> list[str]:
    return [*state_of(shards, settings), f"window {window}"]  # `several` are of the first one


def _read(
    cache: Path, shards: Sequence[Shard], settings: build.Settings, window: int
) -> tuple[dict[str, Any], columns.Arrays] | None:
    """What is known of all windows; None if some are not indexed, or of another state."""
    found = columns.read(_file(cache, shards, settings))
    whole = found is not None and found[0]["state"] == _state(shards, settings, window)
    return found if whole else None


def index_ahead(
    pattern: str,
    shards: Sequence[Shard],
    settings: build.Settings,
    cache: Path,
    window: int,
    part: build.Part = (0, 1),
) -> None:
    """Index the windows in the background, by a quarter of the CPUs, until this process ends; once
    for each set of shards. An error is left to whoever reads that shard.

    Args:
      part: (i, n), of the processes of a run, which share the work where they share the cache.
    """
    path = _file(cache, shards, settings)
    if len(shards) <= window or path in _ahead or _read(cache, shards, settings, window):
        return
    _ahead.add(path)
    count = max(1, (os.cpu_count() or 1) // 4)
    parts = [(part[0] * count + i, part[1] * count) for i in range(count)]

    def work() -> None:
        with contextlib.suppress(ValueError, OSError):
            build.in_processes(pattern, settings, cache, parts, lambda: None, window)

    threading.Thread(target=work, name="index_ahead", daemon=True).start()
