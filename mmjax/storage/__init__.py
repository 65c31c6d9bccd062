"""Files on a disk or in a bucket, under one set of functions."""

from mmjax.storage.errors import ChangedFileError, StorageError, is_unreachable, sentence
from mmjax.storage.files import (
    Stat,
    exists,
    glob,
    is_url,
    join,
    listing,
    read,
    read_version,
    remove,
    stat,
    write,
    write_new,
)

__all__ = [
    "ChangedFileError",
    "Stat",
    "StorageError",
    "exists",
    "glob",
    "is_unreachable",
    "is_url",
    "join",
    "listing",
    "read",
    "read_version",
    "remove",
    "sentence",
    "stat",
    "write",
    "write_new",
]
