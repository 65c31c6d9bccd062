"""The files that a source reads, by name, size and time, to notice that they are others by now.

No contents are read, except of small sets, whose times may differ. A list is short however large
the set is: of many files, each folder is one entry.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmjax import storage
from mmjax.data.source import Source, StoredFile
from mmjax.process.printable import printable
from mmjax.workdir import jsonl

LISTED = 100_000  # files that are listed one by one
WATCHED = 5_000  # files that are looked at again and again during a run
HASHED_FILES, HASHED_BYTES = 1000, 1 << 25  # of a set whose contents are hashed
NAMED = 3  # files that a sentence names


class Entry(NamedTuple):
    """A file, or the files of a folder.

    Attributes:
      name: below the folder that all files of its source are in; that of a folder ends with "/".
      bytes: their size; -1 of a file that is missing.
      stamp: changes with the contents: their hash, or the time of the last modification.
      files: their number.
    """

    name: str
    bytes: int
    stamp: str
    files: int = 1


def list_files(source: Source) -> list[Entry]:
    """The files of a source and of the sources that it is made of; sorted by name within each."""
    entries = []
    for number, part in enumerate(source.inputs, start=1):
        own = f"source {number}: " if len(source.inputs) > 1 else ""  # names that both may have
        entries += [entry._replace(name=own + entry.name) for entry in list_files(part)]
    files = {os.path.abspath(_path(file)): file for file in source.files()}
    if not files:
        return entries
    paths = sorted(files)
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [printable(os.path.relpath(path, root)) for path in paths]
    sizes, stamps = zip(*(_stat(files[path]) for path in paths))
    stored = any(storage.is_url(str(_path(file))) for file in files.values())
    small = len(paths) <= HASHED_FILES and sum(sizes) <= HASHED_BYTES and min(sizes) >= 0
    if small and not stored:
        stamps = [_content(Path(path)) for path in paths]
    own = list(map(Entry, names, sizes, stamps))
    return entries + (_by_folder(own) if len(own) > LISTED else own)


def _path(file: Path | StoredFile) -> Path | str:
    return file.path if isinstance(file, StoredFile) else file


def _stat(file: Path | StoredFile) -> tuple[int, str]:
    """Size, and version or time of modification in nanoseconds; (-1, "0"): it is missing."""
    if isinstance(file, StoredFile):
        return file.bytes, file.version
    try:
        found = file.stat()
    except OSError:
        return -1, "0"
    return found.st_size, str(found.st_mtime_ns)


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:  # it has just disappeared
        return ""


def _by_folder(entries: Iterable[Entry]) -> list[Entry]:
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        folders.setdefault(f"{entry.name.rpartition('/')[0] or '.'}/", []).append(entry)
    return [
        Entry(name, sum(e.bytes for e in some), digest(some), sum(e.files for e in some))
        for name, some in folders.items()
    ]


def digest(entries: Sequence[Entry]) -> str:
    """16 hex digits that change with any entry."""
    found = hashlib.sha256()
    for entry in entries:
        found.update(jsonl.line(entry).encode() + b"\n")
    return found.hexdigest()[:16]


def difference(before: Sequence[Entry], now: Sequence[Entry]) -> str:
    """What has been added, removed and changed, with the first names; "" if nothing has."""
    old, new = ({entry.name: entry for entry in entries} for entries in (before, now))
    missing = [name for name, e in old.items() if name not in new or _is_missing(new[name], e)]
    added = [name for name in new if name not in old]
    both = [(old[name], e) for name, e in new.items() if name in old and old[name] != e]
    changed = [_change(a, b) for a, b in both if not _is_missing(b, a)]
    parts = [
        f"{len(names):,} {one if len(names) == 1 else several} ({_first(names)})"
        for names, one, several in (
            (missing, "is missing", "are missing"),
            (added, "is new", "are new"),
            (changed, "has changed", "have changed"),
        )
        if names
    ]
    return ", ".join(parts)


def _is_missing(now: Entry, before: Entry) -> bool:
    return now.bytes < 0 <= before.bytes


def _change(before: Entry, now: Entry) -> str:
    if before.files != now.files:
        return f"{now.name} from {before.files:,} files to {now.files:,}"
    if before.bytes != now.bytes:
        return f"{now.name} from {before.bytes:,} bytes to {now.bytes:,}"
    hashed = not (before.stamp.isdigit() and now.stamp.isdigit()) and now.files == 1
    how = "other contents" if hashed else "another time of modification"
    return f"{now.name}, as large as before, with {how}"


def _first(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more:,} more" if more > 0 else "")


class Watch:
    """Notices files that change while a run reads them.

    Args:
      sources: of which the files are looked at, if they are few enough to be listed one by one.
    """

    def __init__(self, sources: Iterable[Source]):
        paths = list(dict.fromkeys(path for source in sources for path in files_of(source)))
        self._stats = {path: _stat(path) for path in paths} if len(paths) <= LISTED else {}

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Context that adds what has happened to the files to a ValueError."""
        try:
            yield
        except ValueError as error:
            if not (what := self._changed()):
                raise
            raise ValueError(
                f"{error} Of the files of its data, {what} since the run was started."
            ) from error

    def changed(self) -> str:
        """What has happened to the files since the last call or the start; "" if nothing has, or
        if there are too many to look."""
        return self._changed() if len(self._stats) <= WATCHED else ""

    def _changed(self) -> str:
        found = {path: _stat(path) for path in self._stats}
        before, now = (
            [Entry(printable(path), *stat) for path, stat in stats.items()]
            for stats in (self._stats, found)
        )
        self._stats = found
        return difference(before, now)


def files_of(source: Source) -> Iterable[Path]:
    """The paths of a source's files, those of its parts included, but no URLs."""
    for path in map(_path, source.files()):
        if not storage.is_url(str(path)):
            yield Path(path)
    for part in source.inputs:
        yield from files_of(part)
