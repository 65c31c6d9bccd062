"""NLVR2: sentences about pairs of photographs, true or false."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmjax.data import text_file
from mmjax.data.bad_records import BadRecord, allow
from mmjax.data.cache import data_root
from mmjax.data.source import Source
from mmjax.process.printable import printable

LABELS = ["false", "true"]
_NEEDED = ("identifier", "sentence", "label")


def open_nlvr2(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    max_bad_records: int | float = 0,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "NLVR2":
    """The examples of one of NLVR2's files.

    Args:
      annotations: train.json, dev.json, test1.json, ..., with one JSON object per line.
      images: the folder of the images, or one above it: NAME-img0.png (left) and NAME-img1.png
        are in it, or in SPLIT/, train/DIRECTORY/ or images/train/DIRECTORY/ below it, where NAME is
        the identifier without its last number.
      max_bad_records: examples without both images that may be left out; see
        `mmjax.data.bad_records.allow`.
      workdir: where these are listed; None: the data cache.

    Raises:
      ValueError: no such file or folder, a line that is no example, or too many missing images.

    Source: Suhr et al. 2019 (arXiv 1811.00491); lil-lab/nlvr, nlvr2/README.md.
    """
    path, root = Path(annotations).expanduser(), Path(images).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {path}: set annotations to NLVR2's train.json.")
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set images to the folder of the images.")
    records, bad = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        record = _record(line, f"Line {number} of {path}")
        pair = _pair(root, record)
        if isinstance(pair, BadRecord):
            bad.append(pair)
        else:
            records.append(record | {"pair": pair})
    if not records and not bad:
        raise ValueError(f"{path} is empty: it lists no examples.")
    total = len(records) + len(bad)
    allow(bad, total, max_bad_records, str(path), Path(workdir or data_root(data_dir)))
    if not records:
        raise ValueError(f"{path} has no usable example left: all {total} lack an image.")
    return NLVR2(path, records)


class NLVR2(Source):
    """Examples with two images and a sentence.

    `image` holds the bytes of the left and of the right image, `captions` the sentence, `label` its
    truth, of `class_names` false and true. `sentence_id` is equal for the pairs that were judged by
    the same sentence, over which consistency is measured.
    """

    class_names = LABELS

    def __init__(self, path: Path, records: list[dict[str, Any]]):
        self.name = str(path)
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        return [*self.named_files, *(file for record in self._records for file in record["pair"])]

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = tuple(file.read_bytes() for file in self._records[index]["pair"])
        return {**self.meta(index), "image": image}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        record = self._records[index]
        split, place, _, sentence = record["identifier"].split("-")
        return {
            "key": printable(record["identifier"]),
            "captions": [record["sentence"]],
            "label": LABELS.index(str(record["label"]).lower()),
            "sentence_id": f"{split}-{place}-{sentence}",
        }


def _record(line: bytes, where: str) -> dict[str, Any]:
    """An annotation, checked."""
    try:
        record = text_file.parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}): get the file again.") from None
    missing = [name for name in _NEEDED if not isinstance(record, dict) or name not in record]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}: is this a file of NLVR2?")
    # These are parts of the files' names, which must not lead out of the folder.
    if not _is_name(record["identifier"], r"\w{1,40}(-\w{1,40}){3}"):
        raise ValueError(
            f"{where} has the identifier {record['identifier']!r}, SPLIT-SET-PAIR-SENTENCE in "
            "NLVR2: correct it."
        )
    if not _is_name(str(record.get("directory", 0)), r"\w{1,40}"):
        raise ValueError(
            f"{where} has the directory {record['directory']!r}, a number in NLVR2: correct it."
        )
    if not isinstance(record["sentence"], str) or not text_file.is_text(record["sentence"]):
        raise ValueError(f"{where} has the sentence {record['sentence']!r}: it must be text.")
    if str(record["label"]).lower() not in LABELS:
        raise ValueError(f"{where} has the label {record['label']!r}: it is 'True' or 'False'.")
    return record


def _is_name(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _pair(root: Path, record: dict[str, Any]) -> tuple[Path, Path] | BadRecord:
    """The files of the left and of the right image."""
    identifier = record["identifier"]
    name, split = identifier.rsplit("-", 1)[0], identifier.split("-")[0]
    folders = [root, root / split]
    if "directory" in record:
        train = Path("train", str(record["directory"]))
        folders += [root / train, root / "images" / train]
    for folder in folders:
        pair = folder / f"{name}-img0.png", folder / f"{name}-img1.png"
        if all(file.is_file() for file in pair):
            return pair
    below = ", ".join(str(folder) for folder in folders)
    return BadRecord(identifier, "missing_file", f"no {name}-img0.png and -img1.png in {below}")
