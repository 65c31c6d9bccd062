"""Folders of images: with a JSONL or CSV file of captions, or with one subfolder per class."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmjax.data.bad_records import BadRecord, allow, image_fault, in_threads
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.source import Source

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
IMAGE_COLUMNS = ("file_name", "image", "filepath")
CAPTION_COLUMNS = ("caption", "captions", "text")


def open_folder(
    root: str | os.PathLike,
    captions: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "FolderSource":
    """Images below `root`, with captions from a file or labels from the subfolders' names.

    Args:
      captions: a .jsonl or .csv file below `root`; None: captions.jsonl or captions.csv if there is
        one, otherwise the subfolders `root/<class>/<image>`.
      image_column: column with the image's path below `root`; None: the first of `IMAGE_COLUMNS`.
      caption_column: column with a text, in JSONL also a list of texts; None: the first of
        `CAPTION_COLUMNS`.
      max_bad_records: see `mmjax.data.bad_records.allow`.
      workdir: where bad records are listed; None: the data cache.

    Every image is decoded once, when the folder is first opened; the result is cached until a file
    changes.

    Raises:
      ValueError: no such folder, no images, a missing column, or too many bad records.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set root to the folder of the images.")
    if captions is None:
        names = [n for n in ("captions.jsonl", "captions.csv") if (root / n).is_file()]
        captions = names[0] if names else None
    class_names = None
    bad: list[BadRecord] = []
    if captions is not None:
        rows = _caption_rows(root / captions, image_column, caption_column)
        records = _with_captions(rows, root / captions, bad)
        total = len(rows)
    else:
        class_names, records = _by_class(root)
        total = len(records)
    if total == 0:
        raise ValueError(f"{root / (captions or '')} is empty: it lists no images.")
    bad += _image_faults(root, [r["key"] for r in records], data_root(data_dir))
    faulty = {b.key for b in bad if b.kind in ("unreadable_image", "missing_file")}
    allow(bad, total, max_bad_records, str(root), Path(workdir or data_root(data_dir)))
    good = [r for r in records if r["key"] not in faulty]
    if not good:
        raise ValueError(f"{root} has no usable record left: all {total} are bad.")
    return FolderSource(root, good, class_names)


class FolderSource(Source):
    """Records of a folder; images are read when their record is accessed."""

    def __init__(self, root: Path, records: list[dict], class_names: list[str] | None):
        self.name = str(root)
        self.class_names = class_names
        self._root, self._records = root, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        return {**record, "image": (self._root / record["key"]).read_bytes()}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        return dict(self._records[index])


def _by_class(root: Path) -> tuple[list[str], list[dict]]:
    classes = sorted(p.name for p in root.iterdir() if p.is_dir())
    records = [
        {"key": f"{name}/{file.name}", "label": label}
        for label, name in enumerate(classes)
        for file in sorted((root / name).iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not records:
        deeper = (p.parents[1] for p in root.glob("*/*/*") if p.suffix.lower() in IMAGE_SUFFIXES)
        parent = next(deeper, None)
        hint = f" There are such subfolders one level down: is root {parent}?" if parent else ""
        raise ValueError(
            f"{root} has neither a captions.jsonl or captions.csv nor images in subfolders by "
            f"class (root/<class>/<image>).{hint}"
        )
    return classes, records


def _caption_rows(
    path: Path, image_column: str | None, caption_column: str | None
) -> list[tuple[Any, Any]]:
    """(image, caption) of each row of the file."""
    if not path.is_file():
        raise ValueError(f"There is no caption file {path}: set captions to its name.")
    if path.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"The caption file {path} must end in .jsonl or .csv.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(_json_rows(file, path) if path.suffix == ".jsonl" else csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"The caption file {path} cannot be read: {error}.") from error
    if not rows:
        return []
    # JSON rows may differ in their fields: the columns are the union over all rows.
    found = list(dict.fromkeys(column for row in rows for column in row))
    image = _column(image_column, IMAGE_COLUMNS, found, path, "image")
    caption = _column(caption_column, CAPTION_COLUMNS, found, path, "caption")
    return [(row.get(image), row.get(caption)) for row in rows]


def _json_rows(lines: Iterable[str], path: Path) -> Iterator[dict]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, must be a JSON object with named fields.")
        yield row


def _column(asked: str | None, usual: tuple[str, ...], columns: list, path: Path, what: str) -> str:
    found = [c for c in ([asked] if asked else usual) if c in columns]
    if not found:
        wanted = f"'{asked}'" if asked else " or ".join(f"'{c}'" for c in usual)
        raise ValueError(
            f"The caption file {path} has no {what} column {wanted}; its columns are "
            f"{', '.join(map(str, columns))}: set {what}_column."
        )
    return found[0]


def _with_captions(rows: list[tuple], path: Path, bad: list[BadRecord]) -> list[dict]:
    """Records of the rows that have an image name and a caption; the others go to `bad`."""
    records: dict[str, dict] = {}
    for number, (key, caption) in enumerate(rows, start=1):
        texts = caption if isinstance(caption, list) else [caption]
        texts = [t.strip() for t in texts if isinstance(t, str) and t.strip()]
        if not isinstance(key, str) or not key:
            bad.append(BadRecord(f"row {number}", "missing_file", "the row names no image"))
        elif key in records:
            reason = f"row {number} of {path.name} names it again; several captions go in a list"
            bad.append(BadRecord(key, "duplicate_key", reason))
        elif not texts:
            bad.append(BadRecord(key, "missing_caption", f"row {number} of {path.name} has none"))
        else:
            records[key] = {"key": key, "captions": texts}
    return list(records.values())


def _image_faults(root: Path, keys: list[str], cache: Path) -> list[BadRecord]:
    """Missing and unreadable images; from the cache while no file's size or time has changed."""
    bad, stats, present = [], hashlib.sha256(), []
    for key in keys:
        try:
            stat = (root / key).stat()
        except OSError as error:
            bad.append(BadRecord(key, "missing_file", error.strerror or str(error)))
            continue
        present.append(key)
        stats.update(f"{key}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    found_at = cache / "checked_folders" / f"{name}.json"
    found = read_json(found_at)
    if found is None or found["state"] != stats.hexdigest():
        reasons = in_threads(
            lambda key: _fault_of_file(root / key), present, f"Checking the images of {root.name}"
        )
        faults = [[key, reason] for key, reason in zip(present, reasons) if reason]
        found = {"state": stats.hexdigest(), "faults": faults}
        write_json(found_at, found)
    return bad + [BadRecord(key, "unreadable_image", reason) for key, reason in found["faults"]]


def _fault_of_file(path: Path) -> str | None:
    try:
        return image_fault(path.read_bytes())
    except OSError as error:
        return error.strerror or str(error)
