"""Folders of images: with a file of captions, or with one subfolder per class."""

import hashlib
import os
from pathlib import Path
from typing import Any

from mmjax.data.bad_records import BadRecord, allow, image_fault, in_threads
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.source import Source
from mmjax.data.sources.captions import SUFFIXES, read_captions

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
CAPTION_FILES = tuple(f"captions{suffix}" for suffix in SUFFIXES)


def open_folder(
    root: str | os.PathLike,
    captions: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    multiple_captions: bool | None = None,
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "FolderSource":
    """Images below `root`, with captions from a file or labels from the subfolders' names.

    Args:
      captions: the caption file, a path below `root`, or absolute; None: the first of
        `CAPTION_FILES` that exists, otherwise the subfolders `root/<class>/<image>`. The layouts
        of COCO, Flickr8k, Flickr30k and open_clip are read as they are: see `captions.py`.
      image_column: column with the image's path; None: the first of `captions.IMAGE_COLUMNS`.
      caption_column: column with a text, in JSON also a list of texts; None: the first of
        `captions.CAPTION_COLUMNS`.
      multiple_captions: True: all rows that name an image are its captions, in the file's order.
        False: only the first is, and the others are bad records. None: as the layout says (COCO,
        Flickr30k); a file that repeats most of its images in another layout is refused.
      max_bad_records: see `mmjax.data.bad_records.allow`.
      workdir: where bad records are listed; None: the data cache.

    A caption file may be of the images in a subfolder of `root`, such as `Images/` or `val2017/`.
    Every image is decoded once, when the folder is first opened; the result is cached until a file
    changes.

    Raises:
      ValueError: no such folder, no images, a missing column, or too many bad records.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set root to the folder of the images.")
    if captions is None:
        names = [n for n in CAPTION_FILES if (root / n).is_file()]
        captions = names[0] if names else None
    class_names = None
    bad: list[BadRecord] = []
    if captions is not None:
        records, bad = read_captions(
            root / captions, image_column, caption_column, multiple_captions
        )
        records = _below_root(root, records)
    else:
        class_names, records = _by_class(root)
    total = len(records) + len(bad)
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
            f"{root} has neither a captions.jsonl (.csv, .tsv, ...) nor images in subfolders by "
            f"class (root/<class>/<image>).{hint}"
        )
    return classes, records


def _below_root(root: Path, records: list[dict]) -> list[dict]:
    """The records with their images' paths below `root`: the file may be of one of its subfolders.

    Raises:
      ValueError: several subfolders have images of these names.
    """
    some = [record["key"] for record in records[:20]]
    if not some or any((root / key).is_file() for key in some):
        return records
    folders = [
        Path(folder).relative_to(root)
        for folder, _, _ in os.walk(root)
        if any(Path(folder, key).is_file() for key in some)
    ]
    if len(folders) > 1:
        raise ValueError(
            f"The images of the caption file, such as '{some[0]}', are in several folders below "
            f"{root}: {', '.join(map(str, folders))}; set root to one of them, and captions to the "
            "absolute path of the file."
        )
    if not folders:
        return records
    return [{**record, "key": str(folders[0] / record["key"])} for record in records]


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
