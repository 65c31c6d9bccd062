"""The files of a data set, in a folder or a tar archive."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


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
                    yield PurePosixPath(member.name), archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"The archive {root} cannot be read ({error}): {by_hand}") from error
