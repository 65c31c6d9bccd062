"""Data sets written by `mmjax.data.convert`: ArrayRecord shards of pre-resized images.

The folder holds `dataset.json` (the settings of the conversion), `shards.jsonl` (one line per
complete shard), the shards, whose records are examples as msgpack, and beside each shard of images
the same records without their media.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import columns, text_file
from mmjax.data.regions import Regions
from mmjax.data.source import Source, without_media
from mmjax.workdir import jsonl

DATASET, SHARDS = "dataset.json", "shards.jsonl"
_NAME = re.compile(r"\d{1,9}-of-\d{1,9}\.array_record")


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
    dataset, shards = read_dataset(root), read_shards(root)
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
    metas = [_read_metas(root / s["name"], s["records"]) for s in shards if s["records"]]
    return RecordSource(
        str(root), ArrayRecordDataSource(parts), dataset["class_names"], metas, files
    )


def read_dataset(root: Path) -> dict[str, Any]:
    """What dataset.json says of a set.

    Raises:
      ValueError: a damaged file.
    """
    path = root / DATASET
    try:
        found = text_file.parse_json(text_file.read(path))
        fault = jsonl.fault_of(found, shards=int)
    except ValueError as error:
        fault = f"is no JSON ({error})"
    if fault is None and not _are_names(found.get("class_names", ...)):
        fault = "has no 'class_names', a list of texts or null"
    if fault is not None:
        raise ValueError(f"{path} {fault}: restore it, or convert the data set again.")
    return found


def _are_names(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


def read_shards(root: Path) -> list[dict[str, Any]]:
    """The lines of shards.jsonl: the name of each complete shard, its records and bytes, and the
    bad ones.

    Raises:
      ValueError: a damaged line.
    """
    rows = jsonl.read(root / SHARDS, name=str, records=int, bytes=int, bad=list)
    for number, row in enumerate(rows, 1):
        bad = all(isinstance(b, list) and len(b) == 3 for b in row["bad"])
        if not _NAME.fullmatch(row["name"]) or row["records"] < 0 or not bad:
            raise ValueError(
                f"{root / SHARDS}, line {number}, names no shard of ours: restore it, or convert "
                "the data set again."
            )
    return rows


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


def _read_metas(shard: Path, records: int) -> columns.Arrays | None:
    """What `write_metas` wrote; None if it is missing or damaged."""
    found = columns.read(_metas_of(shard))
    if found is None or found[1].keys() != {"ends", "metas"}:
        return None
    ends = np.asarray(found[1]["ends"])
    whole = len(ends) == records and ends[-1] == len(found[1]["metas"])
    return found[1] if whole and (np.diff(ends, prepend=0) >= 0).all() else None


class RecordSource(Source):
    """Examples of the original source; `image` is JPEG, or uint8 [H, W, 3] if converted raw.

    Args:
      metas: of each shard, the arrays that `write_metas` wrote; None: `meta` reads all.
      files: that they are in.
    """

    def __init__(
        self,
        name: str,
        data: Any,
        class_names: list[str] | None,
        metas: Sequence[columns.Arrays | None],
        files: Sequence[Path] = (),
    ):
        self.name, self.class_names, self._data = name, class_names, data
        self._files = files
        self._metas = None if any(one is None for one in metas) else metas
        self._firsts = np.cumsum([0, *(len(m["ends"]) for m in self._metas or ())])

    def __len__(self) -> int:
        return len(self._data)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return self._files

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self._data[index]
        except RuntimeError as error:  # array_record raises it for a missing or truncated file
            raise OSError(str(error)) from error
        return _example(record, self.name)

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; no media are read."""
        if self._metas is None:
            return super().meta(index)
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        ends, metas = (self._metas[shard][name] for name in ("ends", "metas"))
        place = index - int(self._firsts[shard])
        start = int(ends[place - 1]) if place else 0
        return _example(metas[start : int(ends[place])].tobytes(), self.name)


def _example(record: bytes, name: str) -> dict[str, Any]:
    from flax.serialization import msgpack_restore

    try:
        example = msgpack_restore(record)
        if "regions" in example:
            example["regions"] = Regions(**example["regions"])
    except Exception as error:  # of msgpack and of NumPy's types, of any kind
        raise ValueError(
            f"a record of {name} is damaged ({error}): restore its shard and the .meta file beside "
            "it, or convert the data set again"
        ) from None
    return example
