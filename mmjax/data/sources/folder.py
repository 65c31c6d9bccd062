"""Folders of images: with a file of captions, or with one subfolder per class."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import PIL

from mmjax.data.bad_records import BadRecord, allow, image_fault, in_threads
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.image_files import IMAGES, Skipped, below, file_fault
from mmjax.data.source import Source
from mmjax.data.sources.captions import SUFFIXES, read_captions
from mmjax.process.printable import printable

CAPTION_FILES = tuple(f"captions{suffix}" for suffix in SUFFIXES)
# Names of the parts of a data set: folders one level above those of the classes.
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}

_log = logging.getLogger(__name__)


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
      captions: the caption file, a path below `root`, or absolute, in the layout of COCO,
        Flickr8k, Flickr30k, open_clip or another of `captions.py`; None: the first of
        `CAPTION_FILES` that exists, otherwise the subfolders `root/<class>/<image>`, as
        torchvision's ImageFolder reads them: classes sorted by name, images at any depth below
        their class's folder, and a class without images is refused. Hidden and system folders are
        skipped (see `image_files.below`).
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
    keys = [r["key"] for r in records]
    bad += file_faults(root, keys, data_root(data_dir), _fault_of_file, PIL.__version__)
    faulty = {b.key for b in bad if b.kind in ("unreadable_image", "missing_file")}
    allow(bad, total, max_bad_records, str(root), Path(workdir or data_root(data_dir)))
    good = [r for r in records if r["key"] not in faulty]
    if not good:
        raise ValueError(f"{root} has no usable record left: all {total} are bad.")
    return FolderSource(root, good, class_names)


class FolderSource(Source):
    """Records of a folder; images are read when their record is accessed.

    A record's `key` is the image's path below the root; examples have it in printable characters.
    """

    def __init__(self, root: Path, records: list[dict], class_names: list[str] | None):
        self.name = str(root)
        self.class_names = class_names
        self._root, self._records = root, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.meta(index), "image": self._path(index).read_bytes()}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        record = self._records[index]
        return {**record, "key": printable(record["key"])}

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        captions = [self._root / name for name in CAPTION_FILES if (self._root / name).is_file()]
        return [*self.named_files, *captions, *(self._root / r["key"] for r in self._records)]

    def _path(self, index: int) -> Path:
        return self._root / self._records[index]["key"]


def _by_class(root: Path) -> tuple[list[str], list[dict]]:
    """Class names, and the records of their images, with labels."""
    skipped, loose = Skipped(), 0
    folders = []
    for path in sorted(root.iterdir()):
        if path.is_dir():
            folders += [] if skipped.folder(path.name) else [path]
        elif not skipped.file(path.name):
            loose += 1
    found = [below(folder, skipped, links=True) for folder in folders]
    _check_classes(root, folders, found, skipped)
    skipped.report(root)
    if loose:
        _log.warning("%s: %d images beside the class folders have no class", root, loose)
    records = [
        {"key": file.relative_to(root).as_posix(), "label": label}
        for label, files in enumerate(found)
        for file in files
    ]
    return [printable(folder.name) for folder in folders], records


def _check_classes(
    root: Path, folders: list[Path], found: list[list[Path]], skipped: Skipped
) -> None:
    """Raise ValueError if the folders are none of classes, or one has no images."""
    said = f" Skipped: {skipped}." if str(skipped) else ""
    if not any(found):
        raise ValueError(
            f"{root} has neither a captions.jsonl (.csv, .tsv, ...) nor images in subfolders by "
            f"class (root/<class>/<image>; images are {IMAGES}).{said}"
        )
    direct = any(file.parent == folder for folder, files in zip(folders, found) for file in files)
    names = [printable(folder.name) for folder in folders]
    if not direct and (len(folders) == 1 or {name.lower() for name in names} <= SPLITS):
        raise ValueError(
            f"{root} has images in folders below {', '.join(names)} alone, which are no names of "
            f"several classes: is root {folders[0]}?"
        )
    empty = [name for name, files in zip(names, found) if not files]
    if empty:
        raise ValueError(
            f"{root} has class folders without images: {', '.join(empty)}. Each would be a class "
            f"that no example has: remove them, or add their images ({IMAGES}).{said}"
        )


def _below_root(root: Path, records: list[dict]) -> list[dict]:
    """The records with their images' paths below `root`: the file may be of one of its subfolders.

    Raises:
      ValueError: several subfolders have images of these names.
    """
    some = [record["key"] for record in records[:20]]
    if not some or any(os.path.isfile(root / key) for key in some):
        return records
    folders = [
        Path(folder).relative_to(root)
        for folder, _, _ in os.walk(root)
        if any(os.path.isfile(Path(folder, key)) for key in some)
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


def file_faults(
    root: Path,
    keys: list[str],
    cache: Path,
    fault: Callable[[Path], str | None],
    reader: str,
    kind: str = "unreadable_image",
    what: str = "images",
) -> list[BadRecord]:
    """Missing files, and those with a fault; from the cache while no file's size or time has
    changed.

    Args:
      fault: why a file cannot be used, or None.
      reader: name and version of what reads the files: another one may read other files.
      kind: of the bad records; what: the files, for the progress line.
    """
    bad, stats, present = [], hashlib.sha256(reader.encode()), []
    for key in keys:
        missing = file_fault(root, key, folders=True)
        if missing is not None:
            bad.append(BadRecord(key, "missing_file", missing))
            continue
        stat = (root / key).stat()
        present.append(key)
        stats.update(os.fsencode(f"{key}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    of = "" if what == "images" else f"_{what}"
    found_at = cache / "checked_folders" / f"{name}{of}.json"
    found = read_json(found_at)
    if found is None or found["state"] != stats.hexdigest():
        reasons = in_threads(
            lambda key: _readable(fault, root / key), present, f"Checking the {what} of {root.name}"
        )
        faults = [[key, reason] for key, reason in zip(present, reasons) if reason]
        found = {"state": stats.hexdigest(), "faults": faults}
        write_json(found_at, found)
    return bad + [BadRecord(key, kind, reason) for key, reason in found["faults"]]


def _readable(fault: Callable[[Path], str | None], path: Path) -> str | None:
    try:
        return fault(path)
    except OSError as error:
        return error.strerror or str(error)


def _fault_of_file(path: Path) -> str | None:
    return image_fault(path.read_bytes())
