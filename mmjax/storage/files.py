"""Whole files and ranges of files, by a local path or a URL `gs://bucket/name`, `s3://bucket/name`.

A file in a bucket is an object: it is written whole by one request, and other readers see the old
or the new one. There are no folders, and nothing is appended to. fsspec's gcsfs and s3fs repeat a
request that fails by a lost connection or by 429 or 5xx, with growing pauses.

Every function raises `StorageError`, a ValueError that is one sentence; of a file that is missing
it is a FileNotFoundError too.
"""

import contextlib
import glob as local_glob
import os
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from mmjax.storage import local, stores
from mmjax.storage.errors import ChangedFileError, StorageError, sentence

Path = str | os.PathLike


class Stat(NamedTuple):
    """Size in bytes; and what changes whenever the file does: on a disk the time of its last
    change in ns, in a bucket the object's generation (gs) or ETag (s3)."""

    size: int
    version: str


def is_url(path: Path) -> bool:
    """Whether a path is a URL, of any scheme."""
    scheme, found, _ = os.fspath(path).partition("://")
    return bool(found) and scheme.isalnum()


def join(base: Path, *names: str) -> str:
    """A path below another one; a URL stays a URL."""
    return (posixpath if is_url(base) else os.path).join(os.fspath(base), *names)


def exists(path: Path) -> bool:
    """Whether there is such a file, or any file below such a folder."""
    if not is_url(path):
        return os.path.exists(path)
    with _one_sentence(path, "look at"):
        return stores.of(path).exists(path)


def stat(path: Path) -> Stat:
    """Size and version of a file."""
    with _one_sentence(path, "look at"):
        if is_url(path):
            return _stat(stores.of(path).info(path))
        found = os.stat(path)
        return Stat(found.st_size, str(found.st_mtime_ns))


def read_version(path: Path, version: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on of an object of a bucket, which must be of a version.

    Threads may read at the same time.

    Raises:
      ChangedFileError: it has been written again, or removed.
    """
    if not size:
        return b""
    with _one_sentence(path, "read"):
        try:
            return stores.read_version(path, version, offset, offset + size)
        except stores.OtherVersionError:
            raise ChangedFileError(f"{path} has been changed or removed.") from None


def read(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """The content of a file, or `size` bytes of it from `offset` on; fewer at its end.

    Threads may read at the same time.
    """
    with _one_sentence(path, "read"):
        if is_url(path):
            end = None if size is None else offset + size
            if end == offset:
                return b""
            try:
                return stores.of(path).cat_file(path, start=offset or None, end=end)
            except OSError as error:
                if "range is not satisfiable" in str(error):  # s3's answer beyond the end
                    return b""
                raise
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; folders that are missing are created.

    Surrogates, as in file names that are not UTF-8, are written as \\udcff: in JSON its escapes.
    """
    if is_url(path):
        with _one_sentence(path, "write"):
            stores.of(path).pipe_file(path, local.encoded(content))
    else:
        local.write(path, content)


def write_new(path: Path, content: str | bytes) -> bool:
    """`write`, unless there is such a file: False then. Of several writers one succeeds.

    A request that is repeated as its answer was lost may find its own file: give each writer
    content of its own, and read the file after False.
    """
    if not is_url(path):
        return local.write_new(path, content)
    try:
        with _one_sentence(path, "write"):
            stores.of(path).pipe_file(path, local.encoded(content), mode="create")
    except FileExistsError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file; one that is missing is no error."""
    with contextlib.suppress(FileNotFoundError), _one_sentence(path, "remove"):
        if is_url(path):
            stores.of(path).rm_file(path)
        else:
            os.unlink(path)


def listing(folder: Path) -> dict[str, Stat]:
    """Every file below a folder, at any depth: path -> Stat, sorted; empty if there is none.

    Of a bucket it is one request per 1,000 files, where `stat` is one per file.
    """
    with _one_sentence(folder, "list"):
        if is_url(folder):
            found = _stats(folder, stores.of(folder).find(_below(folder), detail=True))
            # s3fs finds a file of the folder's own name too.
            return {name: stat for name, stat in found.items() if name.startswith(_below(folder))}
        names = (join(at, name) for at, _, files in os.walk(folder) for name in files)
        return {name: stat(name) for name in sorted(names)}


def glob(pattern: Path) -> dict[str, Stat]:
    """The files whose path matches, path -> Stat, sorted; `*`, `?`, `[]` and `**` as in Python."""
    with _one_sentence(pattern, "list"):
        if is_url(pattern):
            return _stats(pattern, stores.of(pattern).glob(os.fspath(pattern), detail=True))
        names = sorted(local_glob.glob(os.fspath(pattern), recursive=True))
        return {name: stat(name) for name in names if os.path.isfile(name)}


def _below(folder: Path) -> str:
    return os.fspath(folder).rstrip("/") + "/"


def _stats(url: Path, found: dict[str, dict]) -> dict[str, Stat]:
    scheme = os.fspath(url).partition("://")[0]
    files = {k: v for k, v in found.items() if v["type"] == "file" and not k.endswith("/")}
    return {f"{scheme}://{name}": _stat(files[name]) for name in sorted(files)}


def _stat(info: dict) -> Stat:
    if info["type"] != "file":
        raise FileNotFoundError(info["name"])
    version = info.get("generation") or info.get("ETag") or ""
    return Stat(int(info["size"]), str(version).strip('"'))


@contextlib.contextmanager
def _one_sentence(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (StorageError, FileExistsError):
        raise
    except Exception as error:
        raise sentence(error, path, what) from error
