"""A folder of recordings with a file of what is said in them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmjax.data.bad_records import BadRecord, allow, in_threads
from mmjax.data.cache import data_root
from mmjax.data.image_files import file_fault
from mmjax.data.source import Source
from mmjax.data.sources.captions import read_captions
from mmjax.data.transforms import audio_ops
from mmjax.process.printable import printable

FILES = ("captions.jsonl", "captions.csv", "captions.tsv", "metadata.jsonl", "metadata.csv")


def open_recordings(
    root: str | os.PathLike,
    captions: str | None = None,
    audio_column: str | None = None,
    caption_column: str | None = None,
    longest: float | None = None,
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "RecordingSource":
    """Recordings below `root`, each with its text.

    Args:
      captions: the file of texts, a path below `root`, or absolute, in a layout of `captions.py`
        such as CSV or JSONL; None: the first of `FILES` that exists.
      audio_column: column with the recording's path; None: the first of `captions.IMAGE_COLUMNS`.
      caption_column: column with the text; None: the first of `captions.CAPTION_COLUMNS`.
      longest: seconds; a longer recording, or one that cannot be read, is a bad record. None: no
        recording is opened here.
      max_bad_records: see `mmjax.data.bad_records.allow`; a missing file is a bad record.
      workdir: where bad records are listed; None: the data cache.

    Raises:
      ValueError: no such folder or file, a missing column, or too many bad records.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set root to the folder of the recordings.")
    if captions is None:
        captions = next((name for name in FILES if (root / name).is_file()), None)
    if captions is None:
        raise ValueError(
            f"{root} has no file with the texts of its recordings ({', '.join(FILES)}): set "
            "captions to its name."
        )
    records, bad = read_captions(root / captions, audio_column, caption_column, False, "audio")
    total = len(records) + len(bad)
    missing = {record["key"]: file_fault(root, record["key"]) for record in records}
    good = [record for record in records if missing[record["key"]] is None]
    bad += [BadRecord(key, "missing_file", why) for key, why in missing.items() if why is not None]
    if longest is not None:
        faults = in_threads(
            lambda record: _fault(root, record["key"], longest), good, "Opening recordings"
        )
        good = [record for record, fault in zip(good, faults) if fault is None]
        bad += [fault for fault in faults if fault is not None]
    allow(bad, total, max_bad_records, str(root), Path(workdir or data_root(data_dir)))
    if not good:
        raise ValueError(f"{root / captions} lists no recording that is there.")
    return RecordingSource(root, good)


def _fault(root: Path, key: str, longest: float) -> BadRecord | None:
    try:
        seconds = audio_ops.duration(root / key)
    except (OSError, ValueError) as error:
        return BadRecord(key, "unreadable_audio", str(error))
    if seconds <= longest:
        return None
    return BadRecord(key, "long_audio", f"{seconds:.1f} s of at most {longest:g}: divide it")


class RecordingSource(Source):
    """Recordings, read when their record is accessed: `audio` (encoded bytes), `captions`, and
    `key`, the path below the root."""

    class_names = None

    def __init__(self, root: Path, records: list[dict[str, Any]]):
        self.name = str(root)
        self._root, self._records = root, records

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return [*self.named_files, *(self._root / record["key"] for record in self._records)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self._root / self._records[index]["key"]
        return {**self.meta(index), "audio": path.read_bytes()}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        record = self._records[index]
        return {**record, "key": printable(record["key"])}
