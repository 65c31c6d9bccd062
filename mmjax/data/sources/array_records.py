"""Sets that `mmjax.data.convert` wrote: ArrayRecord shards of pre-resized images, by index.

The folder holds `dataset.json` (what was converted, and how), `shards.jsonl` (a line for each
shard that is whole) and the shards, whose records are examples as msgpack.
"""

import json
import os
from pathlib import Path
from typing import Any

from mmjax.data.source import Source
from mmjax.workdir import jsonl

DATASET, SHARDS = "dataset.json", "shards.jsonl"


def open_records(root: str | os.PathLike) -> "RecordSource":
    """The examples of a converted set.

    Args:
      root: the --target of `mmjax.data.convert`.

    Raises:
      ValueError: no such set, one that is not whole yet, or a shard that is gone or cut off.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    root = Path(root).expanduser()
    if not (root / DATASET).is_file():
        raise ValueError(
            f"There is no {root / DATASET}: set root to a folder that `python -m "
            "mmjax.data.convert` has written."
        )
    dataset = json.loads((root / DATASET).read_text())
    shards = jsonl.read(root / SHARDS)
    if len(shards) < dataset["shards"]:
        raise ValueError(
            f"{root} has {len(shards)} of {dataset['shards']} shards: run its mmjax.data.convert "
            "again, which goes on where it stopped."
        )
    for shard in shards:
        path = root / shard["name"]
        size = path.stat().st_size if path.exists() else None
        if size != shard["bytes"]:
            found = "is gone" if size is None else f"has {size:,} bytes"
            raise ValueError(
                f"The shard {path} {found} and was written with {shard['bytes']:,}: bring it back, "
                "or convert the set again."
            )
    parts = [f"{root / s['name']}[0:{s['records']}]" for s in shards if s["records"]]
    if not parts:
        raise ValueError(f"{root} holds no example: all of its source's records were bad.")
    return RecordSource(str(root), ArrayRecordDataSource(parts), dataset["class_names"])


class RecordSource(Source):
    """Examples as the source had them; `image` is JPEG, or uint8 [H, W, 3] if converted raw."""

    def __init__(self, name: str, data: Any, class_names: list[str] | None):
        self.name, self.class_names, self._data = name, class_names, data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from flax.serialization import msgpack_restore

        try:
            return msgpack_restore(self._data[index])
        except RuntimeError as error:  # array_record's word for a file that is gone or cut off
            raise OSError(str(error)) from error
