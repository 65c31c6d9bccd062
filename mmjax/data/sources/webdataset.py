"""Webdataset tar shards, as img2dataset writes them, with random access.

A record is the files of a shard with the same key: `00012.jpg`, `00012.txt`, `00012.json`. A key
ends at the first dot of the name, as in the webdataset library. The offset of each file in its
shard is looked up once and cached.
"""

import collections
import errno
import functools
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import PIL

from mmjax.data import tar_headers, text_file
from mmjax.data.bad_records import BadRecord, allow, image_fault, in_threads
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.image_files import Skipped
from mmjax.data.source import Source
from mmjax.data.sources.videos import ANIMATIONS, VIDEOS, video_fault, video_reader
from mmjax.data.tar_headers import Member
from mmjax.data.transforms.decode import image_suffixes
from mmjax.process.printable import printable

_INDEX_VERSION = 3


def open_shards(
    pattern: str,
    caption_key: str = "caption",
    multiple_captions: bool | None = None,
    media: str = "image",
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
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

    Raises:
      ValueError: no shard, a shard that is not a complete tar file, several lines in most texts
        where `multiple_captions` is not set, or too many bad records.
    """
    if media not in ("image", "video"):
        raise ValueError(f"The media of {pattern} is '{media}'; use 'image' or 'video'.")
    shards = find_shards(pattern)
    cache = data_root(data_dir) / "shard_indexes"
    indexes = in_threads(
        lambda shard: _cached_index(shard, caption_key, cache, media), shards, f"Reading {pattern}"
    )
    skipped = Skipped()
    for index in indexes:
        for what, number in index["skipped"].items():
            skipped.add(what, number)
    skipped.report(pattern)
    records, bad, total = [], [], 0
    first_with: dict[str, Path] = {}
    for shard, index in zip(shards, indexes, strict=True):
        total += len(index["records"]) + len(index["bad"])
        bad += [BadRecord(*b) for b in index["bad"]]
        for record in index["records"]:
            key = record["key"]
            if key in first_with:
                reason = f"it is in {first_with[key].name} and again in {shard.name}"
                bad.append(BadRecord(key, "duplicate_key", reason))
            else:
                first_with[key] = shard
                records.append((shard, record))
    if total == 0:
        raise ValueError(f"The shards {pattern} hold no {media} with a caption: they are empty.")
    allow(bad, total, max_bad_records, pattern, Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"The shards {pattern} have no usable record left: all {total} are bad.")
    if multiple_captions is None:
        _check_lines([record for _, record in records], pattern)
    if multiple_captions:
        records = [(shard, {**r, "captions": _split(r["captions"])}) for shard, r in records]
    return ShardSource(pattern, records, media)


class ShardSource(Source):
    """Records of tar shards; an image or video is read by its offset when its record is
    accessed."""

    def __init__(self, name: str, records: list[tuple[Path, dict]], media: str = "image"):
        self.name = name
        self._records, self._media = records, media

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return dict.fromkeys(shard for shard, _ in self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard, record = self._records[index]
        return {**self.meta(index), self._media: _read_at(shard, *record[self._media])}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; taken from the index, nothing is read."""
        _, record = self._records[index]
        return {"key": printable(record["key"]), "captions": list(record["captions"])}


def _check_lines(records: list[dict], pattern: str) -> None:
    several = [r for r in records if len(_split(r["captions"])) > len(r["captions"])]
    if 2 * len(several) >= len(records):
        raise ValueError(
            f"{len(several)} of {len(records)} texts of {pattern} have several lines, such as that "
            f"of '{printable(several[0]['key'])}': if each line is one caption of the image, set "
            "multiple_captions=True; if the lines are one text, set it to False."
        )


def _split(captions: list[str]) -> list[str]:
    """The lines of a single text, without blank ones; a list of captions stays as it is."""
    if len(captions) > 1:
        return captions
    return [line.strip() for line in text_file.lines(captions[0]) if line.strip()]


def find_shards(pattern: str) -> list[Path]:
    """Files that match a pattern of globs and `{000..012}` ranges, sorted.

    Raises:
      ValueError: a range whose end is before its start, no file, or a missing shard of a range.
    """
    found: list[str] = []
    for one in _expand(os.path.expanduser(pattern)):
        matches = sorted(glob.glob(one))
        if not matches:
            raise ValueError(f"There is no shard {one}: set pattern to tar files that exist.")
        folder = next((match for match in matches if os.path.isdir(match)), None)
        if folder is not None:
            raise ValueError(f"{folder} is a folder: set pattern to its shards, '{folder}/*.tar'.")
        found += matches
    return [Path(f) for f in dict.fromkeys(found)]


def _expand(pattern: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    first, last = match[1], match[2]
    if int(last) < int(first):
        raise ValueError(f"The range {match[0]} in the pattern {pattern} runs backwards.")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [
        whole
        for n in range(int(first), int(last) + 1)
        for whole in _expand(f"{before}{n:0{len(first)}d}{after}")
    ]


@functools.cache
def image_extensions() -> tuple[str, ...]:
    """Extensions of image files, the usual ones first: of several in a record one is used."""
    usual = ("jpg", "jpeg", "png", "webp")
    return *usual, *(s[1:] for s in image_suffixes() if s[1:] not in usual)


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(errno.EIO, "The shard has become shorter", str(path))
    return data


@functools.cache
def _extensions(media: str) -> tuple[str, ...]:
    """Extensions of the files of that media."""
    if media == "image":
        return image_extensions()
    return tuple(suffix[1:] for suffix in VIDEOS + ANIMATIONS)


def _cached_index(shard: Path, caption_key: str, cache: Path, media: str) -> dict[str, list]:
    stat = shard.stat()
    state = [_INDEX_VERSION, caption_key, stat.st_size, stat.st_mtime_ns]
    state += [PIL.__version__, *image_extensions()]  # another Pillow may read other files
    name = hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:16]
    if media == "video":
        name, state = f"{name}_video", [*state, video_reader()]
    path = cache / f"{name}.json"
    found = read_json(path)
    if found is None or found["state"] != state:
        found = {"state": state, **index_shard(shard, caption_key, media)}
        write_json(path, found)
    return found


def index_shard(shard: Path, caption_key: str, media: str = "image") -> dict[str, list]:
    """`records` (key, captions, image or video: offset and size in the shard) and `bad` (key, kind,
    reason).

    Every image is decoded once, of a video the first frame. `skipped` has the number of other
    files, by suffix or by reason.

    Raises:
      ValueError: not a complete, uncompressed tar file.
    """
    records: list[dict] = []
    bad: list[list[str]] = []
    skipped: collections.Counter[str] = collections.Counter()
    fault_of = image_fault if media == "image" else video_fault
    with shard.open("rb") as file:
        for key, files in _samples(_members(shard), bad, skipped):
            data = {}
            for extension, (offset, size) in files.items():
                file.seek(offset)
                data[extension] = file.read(size)
            image = next((e for e in _extensions(media) if e in data), None)
            lost = _lost(key, files, image is not None)
            bad += [[name, "dotted_key", f"{shard.name}: {reason}"] for name, reason in lost]
            captions, fault = _captions(data, key, caption_key)
            if image is None and lost:
                continue  # each of its images is named already
            if image is None:
                skipped.update(f".{e}" for e in files if e not in ("txt", "json"))
                reason = f"{shard.name} has no {media} for it, only {', '.join(data)}"
                bad.append([key, "missing_file", reason])
            elif fault:
                bad.append([key, "bad_text", f"{shard.name}: {fault}"])
            elif not captions:
                reason = f"{shard.name} has neither {key}.txt nor '{caption_key}' in {key}.json"
                bad.append([key, "missing_caption", reason])
            elif reason := fault_of(data[image]):
                bad.append([key, f"unreadable_{media}", f"{key}.{image}: {reason}"])
            else:
                records.append({"key": key, "captions": captions, media: files[image]})
    return {"records": records, "bad": bad, "skipped": skipped}


def _members(shard: Path) -> list[Member]:
    try:
        return list(tar_headers.members(shard))
    except ValueError as error:
        raise ValueError(
            f"The shard {shard} cannot be read ({error}): it must be a complete, uncompressed tar "
            "file; download or write it again."
        ) from None


def _samples(
    members: Iterable[Member], bad: list[list[str]], skipped: collections.Counter[str]
) -> list[tuple[str, dict]]:
    """(key, {extension: (offset, size)}) in the shard's order; duplicate files go to `bad`."""
    samples: dict[str, dict] = {}
    for member in members:
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem or not extension:
            skipped["files without an extension" if stem else "hidden files"] += 1
            continue
        key = f"{folder}/{stem}" if folder else stem
        files = samples.setdefault(key, {})
        if extension.lower() in files:
            if extension.lower().rpartition(".")[2] in image_extensions():
                bad.append([key, "duplicate_key", f"{member.name} is twice in one shard"])
            continue
        files[extension.lower()] = [member.offset, member.size]
    return list(samples.items())


def _lost(key: str, files: Mapping[str, Any], has_image: bool) -> list[tuple[str, str]]:
    """(name, reason) of images that look like records of their own but for a dot in the name.

    `22.05.png` is the file `05.png` of the record `22`. With a caption `22.05.txt` beside it, or
    where the record has no other image, it was meant as the record `22.05`.
    """
    found = []
    for extension in files:
        rest, dot, last = extension.rpartition(".")
        meant = not has_image or f"{rest}.txt" in files
        if dot and last in image_extensions() and meant:
            reason = f"a key ends at the first dot, so {key}.{extension} is the file '{extension}' "
            reason += f"of the record '{key}': write the shard with names without that dot"
            found.append((f"{key}.{rest}", reason))
    return found


def _captions(
    data: Mapping[str, bytes], key: str, caption_key: str
) -> tuple[list[str], str | None]:
    """The captions of a record, from its text or else its JSON; and why they cannot be read."""
    try:
        text = text_file.decode(data.get("txt", b""), f"{key}.txt").strip()
        if text or "json" not in data:
            return [text] if text else [], None
        text = text_file.decode(data["json"], f"{key}.json")
    except ValueError as error:
        return [], str(error)
    try:
        found = text_file.parse_json(text)
    except ValueError as error:
        return [], f"{key}.json is not JSON: {error}"
    value = found.get(caption_key) if isinstance(found, dict) else found
    several = value if isinstance(value, list) else [value]
    texts = [text.strip() for text in several if isinstance(text, str) and text.strip()]
    if not all(map(text_file.is_text, texts)):
        return [], f"{key}.json has half of a surrogate pair, which is no character"
    return texts, None
