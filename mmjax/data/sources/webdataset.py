"""Webdataset tar shards, as img2dataset writes them, with random access.

`mmjax.data.shards` has the index of the records; images and videos are read by their offset.
"""

import errno
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from mmjax import storage
from mmjax.data.bad_records import BadRecord, FoundBad, allow, image_fault, in_threads
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.image_files import Skipped
from mmjax.data.shards import build
from mmjax.data.shards.index import split
from mmjax.data.shards.merged import Merged, Place, cache_folder, open_merged, read_merged
from mmjax.data.shards.pattern import Shard, find_shards
from mmjax.data.shards.windows import Windows, index_ahead
from mmjax.data.source import Source, StoredFile
from mmjax.data.sources.videos import video_fault, video_reader
from mmjax.data.tar_headers import BLOCK
from mmjax.process.printable import printable
from mmjax.storage.blocks import Blocks

Read = Callable[[Place], bytes]

_FEW = 4  # processes, up to which each uses many of the records of a block
_CHANGED = "The shard has been changed since it was indexed"


def open_shards(
    pattern: str,
    caption_key: str = "caption",
    multiple_captions: bool | None = None,
    media: str = "image",
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
    check_media: bool = True,
    processes: int = 1,
    window: int = 0,
    cache_gb: float = 20.0,
) -> "ShardSource":
    """The records of all shards that match a pattern.

    Args:
      pattern: shards by glob and brace range, `data/{00000..00012}.tar` or `data/*.tar`.
      caption_key: the field of `key.json` that holds the caption, or a list of captions, if there
        is no `key.txt`.
      multiple_captions: True: each line of `key.txt` is a caption, as in retrieval shards. False:
        the whole file is one. None: it is one, but shards where most files have several lines are
        refused.
      media: "image", or "video": the records' files are those of `videos.VIDEOS` or animations.
      max_bad_records: see `mmjax.data.bad_records.allow`.
      workdir: where bad records are listed; None: the data cache.
      check_media: see `open_source`. True: every image is decoded once, of a video the first frame.
      window: in training, of many shards: how many are shuffled together, in the order of
        `mmjax.data.shards.windows`. Training starts when the first window is indexed (of a part of
        a mixture, or where a tokenizer is trained on the captions, when all are), a fraction in
        `max_bad_records` is that of the windows read so far, and keys that are used in several
        shards are not looked for. 0: all are shuffled together, and indexed before.
      cache_gb: of shards in a bucket, how much is kept in the data cache. They are read in blocks
        of several records if they all fit, or have a window and few processes share the records
        of a block; else record by record, and nothing is kept.

    Raises:
      ValueError: no shard, a shard that is not a complete tar file, several lines in most texts
        where `multiple_captions` is not set, or too many bad records.
    """
    settings = _settings(pattern, caption_key, media, window)
    if not cache_gb >= 0:
        raise ValueError(f"The cache_gb of {pattern} is {cache_gb}: use a number from 0.")
    shards, cache = find_shards(pattern), cache_folder(data_dir)
    folder = Path(workdir or data_root(data_dir))
    read = _read
    whole = sum(shard.size for shard in shards) <= cache_gb * 1e9
    if storage.is_url(pattern) and (whole or (window and cache_gb and processes <= _FEW)):
        blocks = Blocks(data_root(data_dir) / "blocks", int(cache_gb * 1e9))
        read = functools.partial(_read_cached, blocks)
    if window and not check_media:
        index_ahead(pattern, shards, settings, cache, window)
        found = FoundBad(pattern, 0, 0, max_bad_records, folder)
        split_captions = bool(multiple_captions)
        source = WindowSource(pattern, shards, settings, cache, window, split_captions, found, read)
        if source.ready == 0:
            raise ValueError(
                f"The first {window} shards of {pattern} hold no {media} with a caption."
            )
        _check_lines(pattern, multiple_captions, *source.several, source.ready)
        return source
    merged = open_merged(pattern, shards, settings, cache)
    skipped = Skipped()
    for what, number in merged.facts["skipped"].items():
        skipped.add(what, number)
    skipped.report(pattern)
    bad = [BadRecord(*b) for b in merged.facts["bad"]]
    total = len(merged) + len(bad)
    if total == 0:
        raise ValueError(f"The shards {pattern} hold no {media} with a caption: they are empty.")
    faults = _faults(pattern, merged, read) if check_media else {}
    for row, reason in faults.items():
        key, _ = merged.text(row)
        bad.append(BadRecord(key, f"unreadable_{media}", reason))
    allow(bad, total, max_bad_records, pattern, folder)
    if len(merged) == len(faults):
        raise ValueError(f"The shards {pattern} have no usable record left: all {total} are bad.")
    _check_lines(pattern, multiple_captions, *merged.facts["several"], len(merged))
    rows = np.delete(np.arange(len(merged)), list(faults)) if faults else None
    found = None
    if not check_media:
        found = FoundBad(pattern, len(bad), total, max_bad_records, folder)
    return ShardSource(pattern, merged, bool(multiple_captions), rows, found, read)


def _check_lines(
    pattern: str, multiple_captions: bool | None, several: int, first: str, total: int
) -> None:
    if multiple_captions is None and 2 * several >= total:
        raise ValueError(
            f"{several} of {total} texts of {pattern} have several lines, such as that of "
            f"'{printable(first)}': if each line is one caption of the image, set "
            "multiple_captions=True; if the lines are one text, set it to False."
        )


def index_part(
    part: build.Part,
    pattern: str,
    caption_key: str = "caption",
    media: str = "image",
    data_dir: str | os.PathLike | None = None,
    window: int = 0,
) -> None:
    """Index a part of the shards that `open_shards` will open, where that is missing.

    Args:
      part: (i, n): every n-th shard from the i-th on.
    """
    settings = _settings(pattern, caption_key, media, window)
    shards, cache = find_shards(pattern), cache_folder(data_dir)
    if window:
        index_ahead(pattern, shards, settings, cache, window, part)
    elif read_merged(cache, shards, settings) is None:
        build.build(pattern, shards, settings, cache, part)


def _settings(pattern: str, caption_key: str, media: str, window: int) -> build.Settings:
    if window < 0:
        raise ValueError(f"The window of {pattern} is {window}: use a number of shards, or 0.")
    if media not in ("image", "video"):
        raise ValueError(f"The media of {pattern} is '{media}'; use 'image' or 'video'.")
    return build.Settings(caption_key, media)


class ShardSource(Source):
    """Records of tar shards; an image or video is read by its offset when its record is
    accessed.

    Args:
      split_captions: each line of a record's only text is a caption.
      rows: the records that are used; None: all.
      found_bad: counts those whose media cannot be decoded; None: all can.
      read: gives the bytes at a place of a shard.
    """

    def __init__(
        self,
        name: str,
        merged: Merged | Windows,
        split_captions: bool = False,
        rows: np.ndarray | None = None,
        found_bad: FoundBad | None = None,
        read: Read | None = None,
    ):
        self.name, self._read = name, read or _read
        self._merged, self._split, self._rows = merged, split_captions, rows
        self._media, self._found_bad = merged.settings.media, found_bad
        self.unchecked = found_bad is not None

    def __len__(self) -> int:
        return len(self._merged) if self._rows is None else len(self._rows)

    def files(self) -> list[StoredFile]:
        """See `Source.files`."""
        return [StoredFile(x.path, x.size, x.version) for x in self._merged.shards]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.meta(index), self._media: self._read(self._merged.place(self._row(index)))}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; taken from the index, no shard is read."""
        key, captions = self._merged.text(self._row(index))
        return {"key": printable(key), "captions": split(captions) if self._split else captions}

    def is_bad(self, index: int) -> bool:
        """See `Source.is_bad`."""
        if self._found_bad is None:
            return False
        row = self._row(index)
        reason = _fault_of(self._media)(self._read(self._merged.place(row)))
        if reason is None:
            return False
        key, _ = self._merged.text(row)
        self._found_bad.add(BadRecord(key, f"unreadable_{self._media}", reason))
        return True

    def _row(self, index: int) -> int:
        return int(index if self._rows is None else self._rows[index])


class WindowSource(ShardSource):
    """Records of tar shards, of which windows are indexed as they are read; for training.

    Args:
      shards: all, in the order of the pattern.
      found_bad: counts all bad records, also those that are found when a window is indexed.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[Shard],
        settings: build.Settings,
        cache: Path,
        window: int,
        split_captions: bool,
        found_bad: FoundBad,
        read: Read,
    ):
        self._given = (name, shards, settings, cache, window, split_captions, found_bad, read)
        windows = Windows(name, shards, settings, cache, window, found_bad.indexed)
        super().__init__(name, windows, split_captions, found_bad=found_bad, read=read)
        self._windows, self.several = windows, windows.several

    def __reduce__(self):
        """Another process indexes what it needs, where that is missing."""
        return WindowSource, self._given

    @property
    def ready(self) -> int:
        """See `Source.ready`."""
        return self._windows.ready

    @property
    def total(self) -> int | None:
        """See `Source.total`."""
        return self._windows.total

    def index_at(self, seed: int, position: int) -> int:
        """See `Source.index_at`."""
        return self._windows.index_at(seed, position)

    def size_at(self, position: int) -> int:
        """See `Source.size_at`."""
        return self._windows.size_at(position)

    def following(self, index: int) -> int:
        """See `Source.following`."""
        return self._windows.following(index)


def _read_cached(blocks: Blocks, place: Place) -> bytes:
    """As `_read`, of a bucket, through a local cache."""
    shard = place.shard
    stat = storage.Stat(shard.size, shard.version)
    try:
        return blocks.read(shard.path, stat, place.offset, place.size)
    except storage.ChangedFileError as error:
        raise OSError(errno.EIO, _CHANGED, shard.path) from error


def _read(place: Place) -> bytes:
    """The bytes at a place.

    Raises:
      OSError: the shard has been changed since it was indexed.
    """
    shard = place.shard
    if storage.is_url(shard.path):
        try:
            return storage.read_version(shard.path, shard.version, place.offset, place.size)
        except storage.ChangedFileError as error:
            raise OSError(errno.EIO, _CHANGED, shard.path) from error
    file = os.open(shard.path, os.O_RDONLY)
    try:
        found = os.fstat(file)
        data = os.pread(file, place.size, place.offset)
    finally:
        os.close(file)
    if (found.st_size, str(found.st_mtime_ns)) != (shard.size, shard.version):
        raise OSError(errno.EIO, _CHANGED, shard.path)
    return data


def _fault_of(media: str) -> Callable[[bytes], str | None]:
    return image_fault if media == "image" else video_fault


def _faults(pattern: str, merged: Merged, read: Read) -> dict[int, str]:
    """The records whose media cannot be decoded, and why."""
    work = functools.partial(_faults_of_shard, merged, read)
    numbers = range(len(merged.shards))
    faults = {}
    for number, known in zip(numbers, in_threads(work, numbers, f"Checking {pattern}")):
        for row in merged.rows(number) if known else ():
            reason = known.get(str(merged.place(row).offset))
            if reason is not None:
                faults[row] = reason
    return faults


def _faults_of_shard(merged: Merged, read: Read, number: int) -> dict[str, str]:
    """Offset of what cannot be decoded in a shard -> why; cached until the shard changes."""
    shard, settings = merged.shards[number], merged.settings
    reader = PIL.__version__ if settings.media == "image" else video_reader()
    state = [*build.index_state(shard, settings), reader]  # another may read other files
    path = merged.cache / f"{build.file_name([shard], settings)}.faults.json"
    found = read_json(path)
    if found is None or found["state"] != state:
        arrays, fault_of = merged.index_of(number), _fault_of(settings.media)
        offsets = (arrays["block"].astype(int) * BLOCK).tolist()
        faults = {}
        for offset, size in zip(offsets, arrays["size"].tolist()):
            reason = fault_of(read(Place(shard, offset, size)))
            if reason is not None:
                faults[str(offset)] = f"{shard.name}: {reason}"
        found = {"state": state, "faults": faults}
        write_json(path, found)
    return found["faults"]
