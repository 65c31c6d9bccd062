"""The files in a tar archive, by its headers alone: name, offset and size of each.

Reads one block of 512 bytes per header, in a few µs, and bounds every number in it by the size of
the file, so that a damaged or hostile archive costs neither time nor memory. Names are those of
ustar (with its prefix), GNU's long names and pax; sizes are octal, GNU's base 256, or pax.

Source of the format: POSIX.1-2017, pax; GNU tar, "Basic Tar Format".
"""

import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 512
LONGEST = 1 << 20  # bytes of a long name, or of the records of one pax header
_ZEROS = bytes(BLOCK)
_ADLER = 65521  # the modulus of Adler-32
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders


class Member(NamedTuple):
    """A file of an archive, and where its content is."""

    name: str
    offset: int
    size: int


def members(path: str | os.PathLike) -> Iterator[Member]:
    """The regular files of an uncompressed tar archive, in its order.

    Bytes of a name that are no UTF-8 are surrogates, as in `os.fsdecode`.

    Raises:
      ValueError: not a tar file, a damaged header, a file that is cut off, or a sparse one, whose
        content is not in one piece.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        yield from _members(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def _members(file: int, end: int) -> Iterator[Member]:
    at, whole, own, long_name = 0, {}, {}, None
    while at < end:
        block = os.pread(file, BLOCK, at)
        if block == _ZEROS:
            return
        size = _checked(block, at)
        kind, start = block[156:157], at + BLOCK
        if own or whole:
            size = _decimal({**whole, **own}.get(b"size"), size, at)
        if kind in _WITHOUT_DATA:
            size = 0
        at = start + -(-size // BLOCK) * BLOCK
        if start + size > end:
            raise ValueError(
                f"the file at byte {start - BLOCK:,} has {size:,} bytes, and the archive ends at "
                f"{end:,}: it is cut off"
            )
        if kind == b"L":
            long_name = _content(file, start, size).split(b"\0", 1)[0]
        elif kind in (b"x", b"X"):
            own = _records(_content(file, start, size), start)
        elif kind == b"g":
            whole |= _records(_content(file, start, size), start)
        elif kind != b"K":
            name = block[:100].partition(b"\0")[0]
            if block[345] or own or whole or long_name is not None:
                name = _long_name(block, {**whole, **own}, long_name, name)
                own, long_name = {}, None
            if kind == b"S":
                raise ValueError(f"'{os.fsdecode(name)}' is sparse: write it without --sparse")
            # Before POSIX a folder was a file whose name ends in a slash.
            if kind in _FILES and not name.endswith(b"/"):
                yield Member(os.fsdecode(name), start, size)
    if not end:
        raise ValueError("it is empty")


def _checked(block: bytes, at: int) -> int:
    """The size in a header whose checksum is right."""
    if len(block) < BLOCK:
        raise ValueError(f"it is cut off in the header at byte {at:,}")
    # The sum of all bytes, with spaces in place of the sum itself. The low half of Adler-32 is the
    # sum plus one, in a tenth of Python's time.
    stated, own = _octal(block[148:156]), block[148:156]
    total = -1 if stated is None else 1 + stated + sum(own) - 8 * 32
    if zlib.adler32(block) & 0xFFFF != total % _ADLER:
        # Some programs add up the bytes as signed ones.
        rest = np.frombuffer(block[:148] + block[156:], np.int8)
        if int(rest.sum(dtype=np.int64)) + 8 * 32 != stated:
            if at:
                raise ValueError(f"the header at byte {at:,} has a wrong checksum")
            raise ValueError("it does not begin with a header of a tar file")
    if block[124] & 0x80:  # base 256, of which the first byte is a sign
        size = int.from_bytes(block[125:136], "big") if block[124] == 0x80 else None
    else:
        size = _octal(block[124:136])
    if size is None:
        raise ValueError(f"the header at byte {at:,} has the size {block[124:136]!r}, no number")
    return size


def _octal(field: bytes) -> int | None:
    """The number of a field; None: another thing. An empty one is 0."""
    digits = field.partition(b"\0")[0].strip()
    if not digits.isdigit():
        return None if digits else 0
    try:
        return int(digits, 8)
    except ValueError:
        return None


def _decimal(digits: bytes | None, default: int, at: int) -> int:
    if digits is None:
        return default
    if not digits.isdigit() or len(digits) > 19:
        raise ValueError(f"the pax header before byte {at:,} has the size {digits[:40]!r}")
    return int(digits)


def _content(file: int, start: int, size: int) -> bytes:
    """The content of a special member; not more than `LONGEST`, and within the file."""
    if size > LONGEST:
        raise ValueError(f"the extended header at byte {start:,} has {size:,} bytes")
    return os.pread(file, size, start)


def _records(content: bytes, at: int) -> dict[bytes, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header."""
    found, place = {}, 0
    while place < len(content) and content[place]:
        digits = content[place : place + 20].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        record = content[place + len(digits) + 1 : place + length]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or record[-1:] != b"\n" or place + length > len(content):
            raise ValueError(f"the pax header at byte {at:,} is damaged")
        if key.startswith(b"GNU.sparse."):
            raise ValueError("a file of it is sparse: write it without --sparse")
        found[key], place = value, place + length
    return found


def _long_name(
    block: bytes, pax: dict[bytes, bytes], long_name: bytes | None, name: bytes
) -> bytes:
    if b"path" in pax:
        return pax[b"path"]
    if long_name is not None:
        return long_name
    # GNU has times in the place of the prefix.
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name
