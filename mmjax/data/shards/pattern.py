"""The shards that a pattern of globs and ranges names, and their states."""

import glob
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmjax import storage

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Shard(NamedTuple):
    """A shard and its state, which changes when it is written again."""

    path: str
    size: int
    version: str  # see `storage.Stat`

    @property
    def name(self) -> str:
        """Without its folder."""
        return os.path.basename(self.path)


def find_shards(pattern: str) -> list[Shard]:
    """Files that match a pattern of globs and `{000..012}` ranges, sorted; or objects of a bucket.

    Raises:
      ValueError: a range whose end is before its start, no file, or a missing shard of a range.
    """
    found: dict[str, Shard] = {}
    find = _in_bucket() if storage.is_url(pattern) else _on_disk
    for one in _expanded(pattern if storage.is_url(pattern) else os.path.expanduser(pattern)):
        shards = find(one)
        if not shards:
            raise ValueError(f"There is no shard {one}: set pattern to tar files that exist.")
        found |= {shard.path: shard for shard in shards}
    return list(found.values())


def shuffled(count: int, salt: str = "") -> list[int]:
    """The numbers from 0 to `count` - 1 in a fixed order, that of their hashes."""

    def of(number: int) -> bytes:
        return hashlib.blake2b(f"{salt}/{number}".encode(), digest_size=16).digest()

    return sorted(range(count), key=of)


def _in_bucket() -> Callable[[str], list[Shard]]:
    """Finds shards; lists each folder once, as a request per shard would take long."""
    folders: dict[str, dict[str, storage.Stat]] = {}

    def find(path: str) -> list[Shard]:
        if glob.has_magic(path):
            return [Shard(name, *stat) for name, stat in storage.glob(path).items()]
        folder = path.rpartition("/")[0]
        if folder not in folders:
            folders[folder] = storage.glob(f"{folder}/*")
        stat = folders[folder].get(path)
        return [] if stat is None else [Shard(path, *stat)]

    return find


def _on_disk(path: str) -> list[Shard]:
    paths = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    return [shard for path in paths if (shard := _state_of(path)) is not None]


def _state_of(path: str) -> Shard | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is a folder: set pattern to its shards, '{path}/*.tar'.")
    return Shard(path, found.st_size, str(found.st_mtime_ns))


def _expanded(pattern: str) -> Iterator[str]:
    places, texts = [], []
    end = 0
    for match in _RANGE.finditer(pattern):
        first, last = match[1], match[2]
        if int(last) < int(first):
            raise ValueError(f"The range {match[0]} in the pattern {pattern} runs backwards.")
        places.append([f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)])
        texts.append(pattern[end : match.start()])
        end = match.end()
    for numbers in itertools.product(*places):
        before = "".join(text + number for text, number in zip(texts, numbers, strict=True))
        yield before + pattern[end:]
