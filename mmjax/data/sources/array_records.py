"""Data sets written by `mmjax.data.convert`: ArrayRecord shards of pre-resized images.

The folder holds `dataset.json` (the settings of the conversion), `shards.jsonl` (one line per
complete shard) and the shards, whose records are examples as msgpack.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.regions import Regions
from mmjax.data.source import Source
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
    files = [root / name for name in (DATASET, SHARDS, *(shard["name"] for shard in shards))]
    parts = [f"{root / s['name']}[0:{s['records']}]" for s in shards if s["records"]]
    if not parts:
        raise ValueError(f"{root} has no examples: all records of its source were bad.")
    return RecordSource(str(root), ArrayRecordDataSource(parts), dataset["class_names"], files)


class RecordSource(Source):
    """Examples of the original source; `image` is JPEG, or uint8 [H, W, 3] if converted raw."""

    def __init__(
        self, name: str, data: Any, class_names: list[str] | None, files: Sequence[Path] = ()
    ):
        self.name, self.class_names, self._data = name, class_names, data
        self._files = files

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
        if "regions" in example:
            example["regions"] = Regions(**example["regions"])
        return example
