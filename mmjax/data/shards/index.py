"""The index of one shard: where the records are, their keys and captions.

A record is the files of a shard with the same key: `00012.jpg`, `00012.txt`, `00012.json`. A key
ends at the first dot of the name, as in the webdataset library. Only headers and short texts are
read; images and videos are not.
"""

import collections
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np

from mmjax.data import tar_headers, text_file
from mmjax.data.sources.videos import ANIMATIONS, VIDEOS
from mmjax.data.tar_headers import BLOCK, File, Read
from mmjax.data.transforms.decode import image_suffixes

MAX_FILE = 1 << 32  # bytes of an image or video
MAX_TEXTS = 1 << 32  # bytes of a shard's keys and captions


class Index(NamedTuple):
    """Of the records of a shard, in its order, and what is wrong with the others."""

    arrays: dict[str, np.ndarray]  # see `index_shard`
    bad: list[list[str]]  # key, kind, reason
    skipped: dict[str, int]  # number of files that are not read, by suffix or by reason
    several: int  # records whose only text has several lines
    first_several: str  # the key of the first of them


def index_shard(
    read: Read, window: int, size: int, shard: str, caption_key: str, media: str
) -> Index:
    """The index of a shard of `size` bytes.

    `arrays`: `block` uint32, the offset of the image or video in blocks of the tar file; `size`
    uint32, in bytes; `hash` uint64, of the key; `text` uint32, the record's place in `texts` uint8,
    which holds a line of JSON per record: its key, then its captions.

    Args:
      read, window: see `tar_headers.scan`.
      shard: its name, for messages.
      caption_key: the field of `key.json` that holds the captions, if there is no `key.txt`.
      media: "image" or "video".

    Raises:
      ValueError: not a complete, uncompressed tar file.
    """
    bad: list[list[str]] = []
    skipped: collections.Counter[str] = collections.Counter()
    records, dotted = _records(tar_headers.scan(read, size, window), bad, skipped)
    usual = _extensions(media)
    blocks, sizes, hashes, lines, several = [], [], [], [], []
    for key, files in records.items():
        found = files.get(usual[0]) or next((files[e] for e in usual if e in files), None)
        lost = key in dotted and _lost(key, files, found is not None)
        if lost:
            bad += [[name, "dotted_key", f"{shard}: {reason}"] for name, reason in lost]
            if found is None:
                continue  # each of its images is named already
        captions, fault = _ascii(files.get("txt")), None
        if not captions:
            captions, fault = _captions(read, files, key, caption_key)
        if found is None:
            skipped.update(f".{e}" for e in files if e not in ("txt", "json"))
            reason = f"{shard} has no {media} for it, only {', '.join(files)}"
            bad.append([key, "missing_file", reason])
        elif fault:
            bad.append([key, "bad_text", f"{shard}: {fault}"])
        elif not captions:
            reason = f"{shard} has neither {key}.txt nor '{caption_key}' in {key}.json"
            bad.append([key, "missing_caption", reason])
        elif found[1] >= MAX_FILE:
            reason = f"{shard}: it has {found[1]:,} bytes, and a file may have {MAX_FILE:,}"
            bad.append([key, f"unreadable_{media}", reason])
        else:
            blocks.append(found[0] // BLOCK)
            sizes.append(found[1])
            hashes.append(_hash(key))
            lines.append(_line(key, captions))
            # A line end is not printable, which is the faster question.
            if len(captions) == 1 and not captions[0].isprintable() and len(split(captions)) > 1:
                several.append(key)
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    if lengths.sum() > MAX_TEXTS:
        raise ValueError("its captions have more than 4 GiB")
    arrays = {
        "block": np.array(blocks, np.uint32),
        "size": np.array(sizes, np.uint32),
        "hash": np.frombuffer(b"".join(hashes), "<u8"),
        "text": (np.cumsum(lengths) - lengths).astype(np.uint32),
        "texts": np.frombuffer(b"".join(lines), np.uint8),
    }
    return Index(arrays, bad, dict(skipped), len(several), several[0] if several else "")


_EMPTY = hashlib.blake2b(digest_size=8)  # a copy of it takes less time than another one


def _hash(key: str) -> bytes:
    found = _EMPTY.copy()
    found.update(key.encode("utf-8", "surrogateescape"))
    return found.digest()


def _line(key: str, captions: Iterable[str]) -> bytes:
    # `json.dumps` of single strings, without its overhead. Surrogates become \udcff, an escape.
    line = f"[{','.join([encode_basestring(x) for x in (key, *captions)])}]\n"
    return line.encode() if line.isascii() else line.encode("utf-8", "backslashreplace")


def text_of(line: bytes) -> tuple[str, list[str]] | None:
    """The key and the captions in a line of `texts`; None: it is damaged."""
    try:
        key, *captions = json.loads(line.decode())
    except (ValueError, TypeError, RecursionError):
        return None
    return (key, captions) if all(isinstance(x, str) for x in (key, *captions)) else None


def split(captions: list[str]) -> list[str]:
    """The lines of a single text, without blank ones; a list of captions stays as it is."""
    if len(captions) > 1 or ("\n" not in captions[0] and "\r" not in captions[0]):
        return captions
    return [line.strip() for line in text_file.lines(captions[0]) if line.strip()]


@functools.cache
def image_extensions() -> tuple[str, ...]:
    """Extensions of image files, the usual ones first: of several in a record one is used."""
    usual = ("jpg", "jpeg", "png", "webp")
    return *usual, *(s[1:] for s in image_suffixes() if s[1:] not in usual)


@functools.cache
def _extensions(media: str) -> tuple[str, ...]:
    """Extensions of the files of that media."""
    if media == "image":
        return image_extensions()
    return tuple(suffix[1:] for suffix in VIDEOS + ANIMATIONS)


def _records(
    members: Iterable[tuple[str, File]],
    bad: list[list[str]],
    skipped: collections.Counter[str],
) -> tuple[dict[str, dict[str, File]], set[str]]:
    """The files of each key by extension, in the shard's order, and the keys of files with further
    dots; duplicate files go to `bad`."""
    records: dict[str, dict[str, File]] = {}
    dotted, last = set(), None
    for name, file in members:
        folder = ""
        if "/" in name:
            folder, _, name = name.rpartition("/")
            folder += "/"
        key, _, extension = name.partition(".")
        if not key or not extension:
            skipped["files without an extension" if key else "hidden files"] += 1
            continue
        key, extension = folder + key, extension.lower()
        if key != last:  # mostly a record's files follow each other
            files, last = records.setdefault(key, {}), key
        if "." in extension:
            dotted.add(key)
        if extension in files:
            if extension.rpartition(".")[2] in image_extensions():
                bad.append([key, "duplicate_key", f"{folder}{name} is twice in one shard"])
            continue
        if file[2] is not None and extension not in ("txt", "json"):
            file = (*file[:2], None)  # of a small image: not needed
        files[extension] = file
    return records, dotted


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
    read: Read, files: Mapping[str, File], key: str, caption_key: str
) -> tuple[list[str], str | None]:
    """The captions of a record, from its text or else its JSON; and why they cannot be read."""
    try:
        text = _text(read, files.get("txt"), f"{key}.txt").strip()
        if text or "json" not in files:
            return [text] if text else [], None
        text = _text(read, files["json"], f"{key}.json")
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


def _ascii(file: File | None) -> list[str]:
    """The text of nearly all records, as `_captions` would give it, faster; none for others."""
    content = file[2] if file is not None else None
    if content is None or not content.isascii() or b"\0" in content:
        return []
    text = content.decode("ascii").strip()
    return [text] if text else []


def _text(read: Read, file: File | None, name: str) -> str:
    if file is None:
        return ""
    offset, size, content = file
    if content is None:
        content = read(offset, size)
    return text_file.decode(content, name)
