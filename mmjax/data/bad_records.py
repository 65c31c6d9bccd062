"""Bad records of user data: counted by kind, listed in a file, skipped up to a limit."""

import collections
import contextlib
import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mmjax import storage
from mmjax.data import cache
from mmjax.data.transforms.decode import decode_image
from mmjax.process.printable import printable
from mmjax.process.progress import Progress
from mmjax.storage import mirror
from mmjax.workdir import jsonl

LIST_NAME = "bad_records.jsonl"
LOCK_NAME = f"{LIST_NAME}.lock"
KINDS = {
    "unreadable_image": "unreadable images",
    "unreadable_video": "unreadable videos",
    "unreadable_audio": "unreadable recordings",
    "long_audio": "recordings that are too long",
    "missing_caption": "records without a caption",
    "duplicate_key": "records whose key was used before",
    "missing_file": "records whose file is missing",
    "bad_row": "rows that do not fit their caption file",
    "bad_region": "regions that cannot be used",
    "bad_text": "records whose text cannot be read",
    "dotted_key": "records whose file names have a dot before the extension",
}
_WHEN_READ = "when_read"  # a field of lines that stay when the source is opened again
# Enough of an image to notice damage: JPEG is decoded whole but scaled down, which is faster.
_CHECKED_SIZE = 32

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """One record that cannot be used; `kind` is one of `KINDS`."""

    key: str
    kind: str
    reason: str


def image_fault(data: bytes) -> str | None:
    """The reason an encoded image cannot be decoded, or None if it can."""
    try:
        decode_image(data, _CHECKED_SIZE)
    except ValueError as error:
        return str(error)
    return None


def in_threads(work: Callable[[T], object], items: Sequence[T], what: str) -> list:
    """`work` of every item, in order, in threads, with a progress line."""
    with ThreadPoolExecutor() as pool, Progress(what, len(items)) as bar:
        results = []
        for result in pool.map(work, items):
            results.append(result)
            bar.advance()
    return results


def allow(
    bad: Sequence[BadRecord], total: int, limit: int | float, source: str, folder: Path
) -> None:
    """Write the list of bad records, warn once per kind, and raise if there are too many.

    Args:
      total: number of records in the source, including the bad ones.
      limit: maximum number that may be skipped: a count (int) or a fraction of `total` (float).
      source: its name, for the messages and the list.
      folder: contains `bad_records.jsonl`; lines of other sources are kept.

    Raises:
      ValueError: more bad records than `limit`, or an invalid limit.
    """
    most = most_allowed(limit, total, "max_bad_records")
    path = folder / LIST_NAME
    _write_list(path, bad, source)
    if not bad:
        return
    counts = collections.Counter(b.kind for b in bad)
    if len(bad) > most:
        found = ", ".join(f"{n} {KINDS[kind]}" for kind, n in counts.most_common())
        raise ValueError(
            f"{source} has {len(bad)} bad records of {total}, and max_bad_records = {limit} "
            f"allows {most}: {found}; the first is {_named(bad[0])}. "
            f"All are listed in {mirror.shown(path)}: fix them or raise max_bad_records."
        )
    for kind, n in counts.most_common():
        first = next(b for b in bad if b.kind == kind)
        _log.warning(
            "%s: skipping %d %s of %d, first %s; see %s",
            printable(source),
            n,
            KINDS[kind],
            total,
            _named(first),
            mirror.shown(path),
        )


class FoundBad:
    """Records that turn out bad when they are read in training: listed, and counted up to a limit.
    Thread-safe.

    Args:
      source: its name; known: how many of its records were found bad when it was opened.
      total: its number of records, including those.
      limit: maximum number of both, of those that this process reads: see `allow`.
      folder: contains the list.
    """

    def __init__(self, source: str, known: int, total: int, limit: int | float, folder: Path):
        self._source, self._known, self._total = source, known, total
        self._limit, self._folder = limit, folder
        self._keys: set[str] = set()
        self._listed, self._lock = 0, threading.Lock()
        most_allowed(limit, total, "max_bad_records")

    def __reduce__(self):
        """Another process counts its own."""
        return FoundBad, (self._source, self._known, self._total, self._limit, self._folder)

    def indexed(self, bad: Sequence[Sequence[str]], total: int, last: bool) -> None:
        """Of a source that is indexed while it is read: all records found so far, and the bad ones
        among them, as (key, kind, reason); these are listed whenever they have doubled, and once
        all are known.

        Raises:
          ValueError: more bad records than the limit allows of the records found so far.
        """
        most = most_allowed(self._limit, total, "max_bad_records")
        with self._lock:
            self._known, self._total = len(bad), total
            if last or len(bad) > most or len(bad) >= max(1, 2 * self._listed):
                self._listed, found = len(bad), [BadRecord(*one) for one in bad]
                allow(found, total, self._limit, self._source, self._folder)

    def add(self, bad: BadRecord) -> None:
        """Count a record, once, and add it to the list; logs a warning whenever the count reaches a
        power of two.

        Raises:
          ValueError: more bad records than the limit.
        """
        source, limit, folder = self._source, self._limit, self._folder
        path = mirror.own(folder / LIST_NAME)
        with self._lock:
            new = bad.key not in self._keys
            self._keys.add(bad.key)
            count, known, total = len(self._keys), self._known, self._total
            if new:
                with _one_writer(path):
                    jsonl.append(path, [_row(source, bad) | {_WHEN_READ: True}])
        what = f"{source}: {_named(bad)} is one of {count:,} {KINDS[bad.kind]} found when read"
        most = most_allowed(limit, total, "max_bad_records")
        if known + count > most:
            before = f", after {known:,} found when it was opened" if known else ""
            raise ValueError(
                f"{what}{before}; max_bad_records = {limit} allows {most:,} of {total:,}: "
                f"all are listed in {mirror.shown(path)}, fix them or raise max_bad_records."
            )
        if new and count & (count - 1) == 0:
            said = "%s; the next record replaces it; see %s"
            _log.warning(said, printable(what), mirror.shown(path))


def _named(bad: BadRecord) -> str:
    return f"'{printable(bad.key)}' ({printable(bad.reason)})"


def most_allowed(limit: int | float, total: int, setting: str) -> int:
    """Number of records that `limit` allows: a count (int) or a fraction of `total` (float).

    Raises:
      ValueError: an invalid limit; `setting` is its name.
    """
    if isinstance(limit, float):
        if not 0 <= limit <= 1:
            raise ValueError(f"{setting} is {limit}: a fraction must be between 0.0 and 1.0.")
        return int(limit * total)
    if limit < 0:
        raise ValueError(f"{setting} is {limit}: a count must be 0 or more.")
    return limit


def _write_list(path: Path, bad: Sequence[BadRecord], source: str) -> None:
    if not bad and not path.exists():
        return
    with _one_writer(path):
        lines = []
        if path.exists():
            # Not by splitlines: a file of an earlier version may hold other line separators in a
            # name.
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [x for x in text.split("\n") if x and not _is_of(x, source)]
        lines += [jsonl.line(_row(source, b)) for b in bad]
        storage.write(path, "".join(line + "\n" for line in lines))


def _one_writer(path: Path) -> contextlib.AbstractContextManager[None]:
    """While inside no other process of this disk, and no other source of this one, changes the
    list: a line added between another one's read and write would be lost."""
    return cache.locked(path.with_name(LOCK_NAME))


def _row(source: str, bad: BadRecord) -> dict[str, Any]:
    return {"source": source, **dataclasses.asdict(bad)}


def _is_of(line: str, source: str) -> bool:
    """Whether a line of the list is of what a source has found when it was opened."""
    try:
        row = json.loads(line)
        return row["source"] == source and _WHEN_READ not in row
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
