"""Whether an audio file is whole: libsndfile reads most truncated files as shorter ones, silently.

IRCAM, PAF and PVF files do not say how long they are: a truncated one is read as a shorter one.

Source of the formats: RFC 3533 (Ogg); AIFF 1.3; EBU Tech 3306 (RF64); Apple's Core Audio Format;
NIST SPHERE 2.6; libsndfile, w64.c, au.c, svx.c, nist.c and voc.c.
"""

import re
import struct
from collections.abc import Iterator

HEAD, TAIL = 4096, 65536  # bytes that `check` needs; a page of Ogg has no more than 65,307
_UNKNOWN = 0xFFFFFF00  # programs that write to a pipe declare 4 GB


def check(head: bytes, tail: bytes, size: int) -> None:
    """Check that a file ends where its header, or its last page, says.

    Args:
      head, tail: its first `HEAD` and its last `TAIL` bytes, or all of them; size: its bytes.

    Raises:
      ValueError: it is truncated.
    """
    for kind, declared, has in _declared(head, tail, size):
        if has < declared:
            raise ValueError(
                f"the {kind} file ends after {has:,} of the {declared:,} bytes that it declares: "
                "it is truncated, copy it again"
            )


def _declared(head: bytes, tail: bytes, size: int) -> Iterator[tuple[str, int, int]]:
    """(format, bytes that are declared, bytes that are there) of what holds the samples."""
    kind, form = head[:4], head[8:12]
    if kind == b"RIFF" and form == b"WAVE":
        yield from _chunk("WAV", "<", b"data", head, size)
    elif kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        yield from _chunk("AIFF", ">", b"SSND", head, size)
    elif kind == b"FORM" and form in (b"8SVX", b"16SV"):
        yield from _chunk("8SVX", ">", b"BODY", head, size)
    elif kind == b"caff":
        yield from _caf(head, size)
    elif head.startswith(b"NIST_1A\n"):
        yield from _nist(head, size)
    elif head.startswith(b"Creative Voice File\x1a"):
        yield from _voc(head, size)
    elif kind == b"RF64" and head[12:16] == b"ds64" and len(head) >= 28:
        yield "RF64", struct.unpack_from("<Q", head, 20)[0] + 8, size
    elif kind == b"riff" and head[24:28] == b"wave":
        yield "W64", struct.unpack_from("<Q", head, 16)[0], size
    elif kind == b".snd" and len(head) >= 12:
        start, declared = struct.unpack_from(">II", head, 4)
        if declared < _UNKNOWN:
            yield "AU", declared, size - start
    elif kind == b"OggS":
        at = tail.rfind(b"OggS\0")
        if at >= 0:
            count = tail[at + 26] if len(tail) > at + 26 else 0
            end = at + 27 + count + sum(tail[at + 27 : at + 27 + count])
            yield "Ogg", size - len(tail) + end, size


def _caf(head: bytes, size: int) -> Iterator[tuple[str, int, int]]:
    at = 8
    while at + 12 <= len(head):
        name, declared = struct.unpack_from(">4sq", head, at)
        if name == b"data" or declared < 0:
            if declared >= 0:  # else as long as the file is
                yield "CAF", declared, size - at - 12
            return
        at += 12 + declared


def _nist(head: bytes, size: int) -> Iterator[tuple[str, int, int]]:
    start = re.match(rb"NIST_1A\n *(\d{1,9})\n", head)
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    found = [re.search(rb"\n%s -i (\d{1,12})\n" % name, head) for name in names]
    if start and all(found) and b"embedded" not in head:  # which is compressed
        count, channels, width = (int(x[1]) for x in found)
        yield "NIST", count * channels * width, size - int(start[1])


def _voc(head: bytes, size: int) -> Iterator[tuple[str, int, int]]:
    """Of the first block with samples."""
    at = struct.unpack_from("<H", head, 20)[0] if len(head) > 21 else len(head)
    while at + 4 <= len(head) and head[at]:
        declared = int.from_bytes(head[at + 1 : at + 4], "little")
        if head[at] in (1, 2, 9):
            yield "VOC", declared, size - at - 4
            return
        at += 4 + declared


def _chunk(
    kind: str, order: str, wanted: bytes, head: bytes, size: int
) -> Iterator[tuple[str, int, int]]:
    """Of the chunk that holds the samples; nothing where the head does not reach it."""
    at = 12
    while at + 8 <= len(head):
        name, declared = struct.unpack_from(f"{order}4sI", head, at)
        if name == wanted:
            if declared < _UNKNOWN:
                yield kind, declared, size - at - 8
            return
        at += 8 + declared + declared % 2
