"""The files in a tar archive, by its headers alone: name, offset and size of each.

Reads windows of a few blocks, since headers and short texts follow each other, and skips what is
between them. Every number in a header is bounded by the size of the file, so that a damaged or
hostile archive costs neither time nor memory. Checksums of plain headers are verified many at once,
before any of them is returned. Names are those of ustar (with its prefix), GNU's long names and
pax; sizes are octal, GNU's base 256, or pax.

Source of the format: POSIX.1-2017, pax; GNU tar, "Basic Tar Format".
"""

import os
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 512
LONGEST = 1 << 20  # bytes of a long name, or of the records of one pax header
WINDOW = 4096  # bytes read at once of a local file
_BATCH = 1024  # headers whose checksums are verified at once
_FEW = 16  # up to which one by one is faster
_ZEROS = bytes(BLOCK)
_ADLER = 65521  # the modulus of Adler-32
_PLAIN = ord("0")  # the kind of a file
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders
_WEIGHTS = 8 ** np.arange(5, -1, -1, dtype=np.int64)  # of the six octal digits of a checksum

Read = Callable[[int, int], bytes]  # (offset, size) -> bytes, fewer at the end of the file
File = tuple[int, int, bytes | None]  # offset, size, and the content where it was read too


class Member(NamedTuple):
    """A file of an archive, and where its content is."""

    name: str
    offset: int
    size: int


def members(path: str | os.PathLike) -> Iterator[Member]:
    """The regular files of an uncompressed tar archive on disk; see `scan`."""
    file = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(file).st_size
        for name, (offset, size, _) in scan(lambda at, size: os.pread(file, size, at), end):
            yield Member(name, offset, size)
    finally:
        os.close(file)


def scan(read: Read, end: int, window: int = WINDOW) -> Iterator[tuple[str, File]]:
    """The regular files of an uncompressed tar archive, in its order, by name.

    Bytes of a name that are no UTF-8 are surrogates, as in `os.fsdecode`.

    Args:
      end: the size of the archive.
      window: bytes that are read at once; up to four times as many where files are small.

    Raises:
      ValueError: not a tar file, a damaged header, a file that is cut off, or a sparse one, whose
        content is not in one piece.
    """
    at, whole, own, long_name = 0, {}, {}, None
    most = 4 * window
    buffer, first, length = b"", 0, 0  # what was read last, its place and size
    blocks, files = [], []  # plain headers that are not verified yet, and their files
    times: dict[bytes, tuple] = {}  # pax headers of a time that were seen before, by their size
    while at < end:
        place = at - first
        if place + BLOCK > length:
            if place <= length and window < most:  # small files that follow each other
                window *= 2
            buffer, first, place = read(at, window), at, 0
            length = len(buffer)
            if length < BLOCK:
                yield from _verified(blocks, files)
                raise ValueError(f"it is cut off in the header at byte {at:,}")
        block = buffer[place : place + BLOCK]
        start, size, digits = at + BLOCK, end, block[124:135]
        # What nearly all headers are: of a file, with its size in eleven octal digits.
        if block[156] == _PLAIN and not block[135] and digits.isdigit():
            try:
                size = int(digits, 8)
            except ValueError:  # the digits 8 and 9
                size = end
        if start + size <= end and long_name is None and not own and not whole:
            place += BLOCK
            blocks.append(block)
            inside = place + size <= length
            files.append((start, size, buffer[place : place + size] if inside else None))
            at = start + (size + BLOCK - 1 & -BLOCK)
            if len(blocks) == _BATCH:
                yield from _verified(blocks, files)
                blocks, files = [], []
            continue
        time = times.get(digits)
        if time is not None and block == time[0] and not own:
            content = buffer[place + BLOCK : place + BLOCK + time[2]]
            if content.startswith(time[1]) and content.endswith(b"\n"):
                at = start + BLOCK
                continue
        yield from _verified(blocks, files)
        blocks, files = [], []
        if block == _ZEROS:
            return
        size = _checked(block, at)
        kind = block[156:157]
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
            long_name = _content(read, start, size).split(b"\0", 1)[0]
        elif kind in (b"x", b"X"):
            content = _content(read, start, size)
            own = _records(content, start)
            only = b"%d mtime=" % size  # the start of a time that is the only record
            if content.startswith(only) and size <= BLOCK:
                own, times[digits] = {}, (block, only, size)
        elif kind == b"g":
            whole |= _records(_content(read, start, size), start)
        elif kind != b"K":
            name = _name(block, {**whole, **own}, long_name)
            own, long_name = {}, None
            if kind == b"S":
                raise ValueError(f"'{os.fsdecode(name)}' is sparse: write it without --sparse")
            if kind in _FILES and not name.endswith(b"/"):
                yield os.fsdecode(name), (start, size, None)
    yield from _verified(blocks, files)
    if not end:
        raise ValueError("it is empty")


def _verified(blocks: list[bytes], files: list[File]) -> Iterator[tuple[str, File]]:
    """The files of plain headers, by name, after all checksums are verified.

    Raises:
      ValueError: a wrong checksum.
    """
    if len(blocks) < _FEW:
        for block, file in zip(blocks, files, strict=True):
            _checked(block, file[0] - BLOCK)
            name = os.fsdecode(_name(block, {}, None))
            if name[-1:] != "/":
                yield name, file
        return
    headers = np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, BLOCK)
    # The sum of all bytes, with spaces in place of the sum itself.
    field = headers[:, 148:156]
    sums = headers.sum(1, dtype=np.uint32) - field.sum(1, dtype=np.uint32) + 8 * 32
    digits = field[:, :6] - ord("0")  # unsigned: less than "0" is more than 7
    usual = (digits < 8).all(1) & (field[:, 6] == 0)
    for i in np.flatnonzero(~usual | (digits @ _WEIGHTS != sums)):
        _checked(blocks[i], files[i][0] - BLOCK)
    # One column more than the longest name has, mostly.
    width = min(100, 2 + int(headers[:, :100].any(0).nonzero()[0].max(initial=0)))
    names = headers[:, :width].copy()
    if headers[:, 345].any() or ((names[:, :-1] == 0) & (names[:, 1:] != 0)).any():
        decoded = [os.fsdecode(_name(block, {}, None)) for block in blocks]
    else:
        joined = b"\0".join(names.view(f"S{width}")[:, 0].tolist())
        decoded = joined.decode("utf-8", "surrogateescape").split("\0")
    named = zip(decoded, files, strict=True)
    # Before POSIX a folder was a file whose name ends in a slash.
    if headers[:, 345].any() or (names == ord("/")).any():
        named = (pair for pair in named if pair[0][-1:] != "/")
    yield from named


def _checked(block: bytes, at: int) -> int:
    """The size in a header whose checksum is right."""
    stated, field = _octal(block[148:156]), block[148:156]
    # The sum of all bytes, with spaces in place of the sum itself. The low half of Adler-32 is the
    # sum of all bytes plus one, in a tenth of Python's time.
    total = -1 if stated is None else 1 + stated + sum(field) - 8 * 32
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


def _content(read: Read, start: int, size: int) -> bytes:
    """The content of a special member; not more than `LONGEST`, and within the file."""
    if size > LONGEST:
        raise ValueError(f"the extended header at byte {start:,} has {size:,} bytes")
    return read(start, size)


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


def _name(block: bytes, pax: dict[bytes, bytes], long_name: bytes | None) -> bytes:
    if b"path" in pax:
        return pax[b"path"]
    if long_name is not None:
        return long_name
    name = block[:100].partition(b"\0")[0]
    # GNU has times in the place of the prefix.
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name
