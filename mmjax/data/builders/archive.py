"""The files of a data set, in a folder or a tar archive."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# What tarfile and the decompressors raise for damaged archives.
DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)
DAMAGED += (OverflowError, MemoryError, RecursionError)
MAX_MEMBER = 1 << 30  # bytes of a file in an archive


def files(root: Path, suffix: str, by_hand: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(path, content) of the files below a folder, or in an archive, that end in `suffix`.

    Args:
      by_hand: how to get the data, for the message.

    Raises:
      ValueError: an archive that cannot be read.
    """
    if root.is_dir():
        for path in root.rglob(f"*{suffix}"):
            yield PurePosixPath(path.as_posix()), path.read_bytes()
        return
    try:
        with tarfile.open(root) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(suffix):
                    yield PurePosixPath(member.name), content(archive, member)
    except DAMAGED as error:
        raise ValueError(f"The archive {root} cannot be read ({error}): {by_hand}") from error


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a file in an archive.

    Raises:
      ValueError: a damaged archive, or more than `MAX_MEMBER` bytes, which a header can claim.
    """
    if member.size > MAX_MEMBER or member.issparse():
        raise ValueError(
            f"{member.name!r} of {archive.name} has {member.size:,} bytes, or is sparse"
        )
    try:
        data = archive.extractfile(member).read()
    except DAMAGED as error:
        raise ValueError(f"{member.name!r} of {archive.name} is damaged ({error})") from None
    if len(data) != member.size:
        raise ValueError(f"{member.name!r} of {archive.name} is truncated")
    return data
