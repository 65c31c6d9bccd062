"""The shards that a pattern of globs and ranges names, and their states."""

import glob
import itertools
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Shard(NamedTuple):
    """A shard and its state, which changes when it is written again."""

    path: str
    size: int
    version: int  # the time of its last change, in ns

    @property
    def name(self) -> str:
        """Without its folder."""
        return os.path.basename(self.path)


def find_shards(pattern: str) -> list[Shard]:
    """Files that match a pattern of globs and `{000..012}` ranges, sorted.

    Raises:
      ValueError: a range whose end is before its start, no file, or a missing shard of a range.
    """
    found: dict[str, Shard] = {}
    for one in _expanded(os.path.expanduser(pattern)):
        paths = sorted(glob.glob(one)) if glob.has_magic(one) else [one]
        shards = [shard for path in paths if (shard := state_of(path)) is not None]
        if not shards:
            raise ValueError(f"There is no shard {one}: set pattern to tar files that exist.")
        found |= {shard.path: shard for shard in shards}
    return list(found.values())


def state_of(path: str) -> Shard | None:
    """A shard as it is now; None: it does not exist.

    Raises:
      ValueError: it is a folder.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is a folder: set pattern to its shards, '{path}/*.tar'.")
    return Shard(path, found.st_size, found.st_mtime_ns)


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
