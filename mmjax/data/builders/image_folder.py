"""Folders of images by class, `root/<split>/<class>/.../<file>`, as a TFDS data set.

`root` is such a folder or a tar archive of one (for instance CIFAR-10 as JPEG files). Building
packs many small files into one with random access. Images may be at any depth below their class's
folder; hidden and system folders are skipped, and folders without images are no classes.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.archive import DAMAGED, content
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.image_files import IMAGES, Skipped, below
from mmjax.data.sources.folder import SPLITS
from mmjax.process.printable import printable
from mmjax.process.progress import Progress

_OUTSIDE = "images outside <split>/<class>/"
_RULES = 2  # incremented when other files are read: a set is then built again


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """Path of the images, and the number of images per class and split."""

    root: Path
    counts: dict[str, dict[str, int]]


def folder_config(
    root: str | os.PathLike | None, data_dir: str | os.PathLike | None = None
) -> FolderConfig:
    """Scan `root`, once for each state of it; the result is cached.

    Raises:
      ValueError: no root, a missing path, or no image at `<split>/<class>/<file>`.
    """
    if root is None:
        raise ValueError(
            "The image_folder data set needs root: a folder with <split>/<class>/<image> or a "
            "tar archive of one."
        )
    root = Path(root).expanduser().resolve()
    if not root.exists():
        raise ValueError(f"There is no folder or archive {root}: set root to the images.")
    # A folder's modification time changes when files are added or removed.
    state = _state(root, root.stat().st_size) if root.is_file() else _state(root)
    for folder, inside, _ in os.walk(root):
        state += [line for name in inside for line in _state(Path(folder, name))]
    digest = hashlib.sha256(os.fsencode(f"{_RULES} {sorted(state)}")).hexdigest()[:12]
    name = f"{printable(root.name.split('.')[0])}-{digest}"
    listing = data_root(data_dir) / "image_folder" / f"{name}.json"
    counts = read_json(listing)
    if counts is None:
        found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        skipped = Skipped()
        for split, label, _, _ in _images(root, skipped, read=False):
            found[split][label] += 1
        skipped.report(root)
        counts = {split: dict(classes) for split, classes in sorted(found.items())}
        if not counts:
            said = f" Skipped: {skipped}." if str(skipped) else ""
            raise ValueError(
                f"There is no image in {root} at <split>/<class>/<image>, for instance "
                f"train/cat/1.jpg; images are {IMAGES}.{said}"
            )
        write_json(listing, counts)
    return FolderConfig(name=name, version="1.0.0", root=root, counts=counts)


def _state(path: Path, size: int = 0) -> list[str]:
    return [f"{path} {path.stat().st_mtime_ns} {size}"] if path.exists() else []


def _images(
    root: Path, skipped: Skipped, read: bool = True
) -> Iterator[tuple[str, str, str, bytes]]:
    """(split, class, path, encoded bytes) of every image; the bytes are empty unless `read`."""
    found = _in_folder(root, skipped) if root.is_dir() else _in_archive(root, skipped)
    for split, label, path, get in found:
        yield *map(printable, (split, label, path)), get() if read else b""


def _in_folder(root: Path, skipped: Skipped) -> Iterator[tuple[str, str, str, Callable[[], bytes]]]:
    def folders(parent: Path) -> list[Path]:
        found = []
        for path in sorted(parent.iterdir()):
            if path.is_dir():
                found += [] if skipped.folder(path.name) else [path]
            elif not skipped.file(path.name):
                skipped.add(_OUTSIDE)
        return found

    for split in folders(root):
        for label in folders(split):
            images = below(label, skipped, links=True)
            if not images:
                skipped.add(f"folders without images ('{split.name}/{label.name}')")
            for path in images:
                yield split.name, label.name, path.relative_to(root).as_posix(), path.read_bytes


def _in_archive(
    root: Path, skipped: Skipped
) -> Iterator[tuple[str, str, str, Callable[[], bytes]]]:
    try:
        with tarfile.open(root) as archive:
            members = [
                (PurePosixPath(member.name).parts, member)
                for member in archive.getmembers()
                if member.isfile() and PurePosixPath(member.name).parts
            ]
            kept = [
                (parts, member)
                for parts, member in members
                if not any(map(skipped.folder, parts[:-1])) and not skipped.file(parts[-1])
            ]
            around = _around([parts for parts, _ in kept])
            for parts, member in kept:
                parts = parts[around:]
                if len(parts) < 3:
                    skipped.add(_OUTSIDE)
                    continue
                data = functools.partial(content, archive, member)
                yield parts[0], parts[1], "/".join(parts), data
    except DAMAGED as error:
        raise ValueError(
            f"The archive {root} cannot be read ({error}): give a folder or a complete tar archive."
        ) from error


def _around(paths: list[tuple[str, ...]]) -> int:
    """How many folders are around the splits: archives usually hold one.

    The splits are where the folders have the names of splits; or else as deep as leaves most images
    a split and a class, within the folder that has all of them.
    """
    best = 0
    for depth in range(max(map(len, paths), default=0)):
        deep = [parts for parts in paths if len(parts) >= depth + 3]
        names = {parts[depth].lower() for parts in deep}
        if deep and names <= SPLITS:
            return depth
        if 2 * len(deep) > len(paths):
            best = depth
        if len(names) != 1:
            break
    return best


class ImageFolder(SplitBuilder):
    """Labeled images from `root/<split>/<class>/<file>`; the splits are those of the folder."""

    VERSION = tfds.core.Version("1.0.0")

    def _features(self) -> dict[str, Any]:
        classes = sorted({c for counts in self.builder_config.counts.values() for c in counts})
        return {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=classes),
            "path": tfds.features.Text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._examples(split) for split in self.builder_config.counts}

    def _examples(self, wanted: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        total = sum(config.counts[wanted].values())
        with Progress(f"Packing {config.root.name}/{wanted}", total) as bar:
            for split, label, path, data in _images(config.root, Skipped()):
                if split == wanted:
                    yield bar.done, {"image": data, "label": label, "path": path}
                    bar.advance()
