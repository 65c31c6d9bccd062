"""Data sets written by `mmjax.data.convert`: ArrayRecord shards of pre-resized images.

The folder holds `dataset.json` (the settings of the conversion), `shards.jsonl` (one line per
complete shard), the shards, whose records are examples as msgpack, and beside each shard of images
the same records without their media.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import columns
from mmjax.data.regions import Regions
from mmjax.data.source import Source, without_media
from mmjax.workdir import jsonl

DATASET, SHARDS = "dataset.json", "shards.jsonl"


def open_records(root: str | os.PathLike) -> "RecordSource":
    """The examples of a converted data set.

    Args:
      root: the --target of `mmjax.data.convert`.

    Raises:
      ValueError: no such set, an incomplete one, or a shard that is missing or truncated.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    root = Path(root).expanduser()
    if not (root / DATASET).is_file():
        raise ValueError(
            f"There is no {root / DATASET}: set root to a folder that `python -m "
            "mmjax.data.convert` has written."
        )
    dataset = json.loads((root / DATASET).read_text(encoding="utf-8"))
    shards = jsonl.read(root / SHARDS)
    if len(shards) < dataset["shards"]:
        raise ValueError(
            f"{root} has {len(shards)} of {dataset['shards']} shards: run the command that writes "
            "it again, which resumes where it stopped."
        )
    for shard in shards:
        path = root / shard["name"]
        size = path.stat().st_size if path.exists() else None
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise ValueError(
                f"The shard {path} {found} and was written with {shard['bytes']:,}: restore it, "
                "or convert the data set again."
            )
    parts = [f"{root / s['name']}[0:{s['records']}]" for s in shards if s["records"]]
    if not parts:
        raise ValueError(f"{root} has no examples: all records of its source were bad.")
    files = [root / name for name in (DATASET, SHARDS, *(shard["name"] for shard in shards))]
    metas = [columns.read(_metas_of(root / s["name"])) for s in shards if s["records"]]
    return RecordSource(
        str(root), ArrayRecordDataSource(parts), dataset["class_names"], metas, files
    )


def meta_of(record: bytes) -> bytes:
    """A record without its media."""
    from flax.serialization import msgpack_restore, msgpack_serialize

    return msgpack_serialize(without_media(msgpack_restore(record)))


def write_metas(shard: Path, metas: Sequence[bytes]) -> None:
    """Write what `meta_of` gives of the records of a shard beside it."""
    ends = np.cumsum([len(meta) for meta in metas], dtype=np.int64)
    texts = np.frombuffer(b"".join(metas), np.uint8)
    columns.write(_metas_of(shard), {}, {"ends": ends, "metas": texts})


def _metas_of(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.meta")


class RecordSource(Source):
    """Examples of the original source; `image` is JPEG, or uint8 [H, W, 3] if converted raw.

    Args:
      metas: of each shard, what `write_metas` wrote; None: nothing, so that `meta` reads all.
      files: that they are in.
    """

    def __init__(
        self,
        name: str,
        data: Any,
        class_names: list[str] | None,
        metas: Sequence[tuple[dict, columns.Arrays] | None],
        files: Sequence[Path] = (),
    ):
        self.name, self.class_names, self._data = name, class_names, data
        self._files = files
        self._metas = None if None in metas else [arrays for _, arrays in metas]
        self._firsts = np.cumsum([0, *(len(m["ends"]) for m in self._metas or ())])

    def __len__(self) -> int:
        return len(self._data)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return self._files

    def __getitem__(self, index: int) -> dict[str, Any]:
        from flax.serialization import msgpack_restore

        try:
            example = msgpack_restore(self._data[index])
        except RuntimeError as error:  # array_record raises it for a missing or truncated file
            raise OSError(str(error)) from error
        return _with_regions(example)

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; no media are read."""
        from flax.serialization import msgpack_restore

        if self._metas is None:
            return super().meta(index)
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        ends, metas = (self._metas[shard][name] for name in ("ends", "metas"))
        place = index - int(self._firsts[shard])
        start = int(ends[place - 1]) if place else 0
        return _with_regions(msgpack_restore(metas[start : int(ends[place])].tobytes()))


def _with_regions(example: dict[str, Any]) -> dict[str, Any]:
    if "regions" in example:
        example["regions"] = Regions(**example["regions"])
    return example
