"""Files on a disk or in a bucket, under one set of functions."""

from mmjax.storage.files import (
    Stat,
    StorageError,
    exists,
    glob,
    is_url,
    join,
    listing,
    read,
    remove,
    stat,
    write,
    write_new,
)

__all__ = [
    "Stat",
    "StorageError",
    "exists",
    "glob",
    "is_url",
    "join",
    "listing",
    "read",
    "remove",
    "stat",
    "write",
    "write_new",
]
