"""The examples of a source that have a similar length, as `mmjax.pack` has sorted them."""

import os
from pathlib import Path

from mmjax.data import text_file
from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset


def open_bucket(source: Source, file: str | os.PathLike, length: int) -> Subset:
    """Those of at most `length` tokens or patches, and of more than the bucket below.

    Raises:
      ValueError: no such file or bucket, or a file of another source.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"There is no '{path}': write it with python -m mmjax.pack --config=... --lengths=... "
            f"--out={path}."
        )
    try:
        found = text_file.parse_json(path.read_bytes())
        buckets = {int(k): [int(i) for i in members] for k, members in found["buckets"].items()}
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        why = text_file.what_is_wrong(error)
        raise ValueError(f"'{path}' was not written by mmjax.pack --lengths: {why}.") from None
    members = sorted(i for group in buckets.values() for i in group)
    if members != list(range(len(source))):
        raise ValueError(
            f"'{path}' sorts {len(members)} examples and {source.name} has {len(source)}: write it "
            "again."
        )
    if length not in buckets:
        raise ValueError(
            f"'{path}' has no bucket of length {length}; it has {', '.join(map(str, buckets))}."
        )
    return Subset(source, buckets[length])
