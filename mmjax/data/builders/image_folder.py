"""Folders of images by class, `root/<split>/<class>/<file>`, as a TFDS data set.

`root` is such a folder or a tar archive of one (for instance CIFAR-10 as JPEG files). Building
packs many small files into one with random access.
"""

import collections
import dataclasses
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.data.cache import data_root, read_json, write_json
from mmjax.data.sources.folder import IMAGE_SUFFIXES
from mmjax.process.progress import Progress


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
    folders = [root] if root.is_file() else [root, *root.glob("*/"), *root.glob("*/*/")]
    # A folder's modification time changes when files are added or removed.
    state = "\n".join(
        sorted(f"{f} {f.stat().st_mtime_ns} {f.stat().st_size * root.is_file()}" for f in folders)
    )
    stem = root.name.split(".")[0]
    name = f"{stem}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    listing = data_root(data_dir) / "image_folder" / f"{name}.json"
    counts = read_json(listing)
    if counts is None:
        found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for split, label, _, _ in _images(root, read=False):
            found[split][label] += 1
        counts = {split: dict(classes) for split, classes in sorted(found.items())}
        if not counts:
            raise ValueError(
                f"There is no image in {root} at <split>/<class>/<image>, for instance "
                f"train/cat/1.jpg; images end in {', '.join(IMAGE_SUFFIXES)}."
            )
        write_json(listing, counts)
    return FolderConfig(name=name, version="1.0.0", root=root, counts=counts)


def _images(root: Path, read: bool = True) -> Iterator[tuple[str, str, str, bytes]]:
    """(split, class, path, encoded bytes) of every image; the bytes are empty unless `read`."""
    if root.is_dir():
        for path in sorted(root.glob("*/*/*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                split, label, _ = path.relative_to(root).parts
                inside = path.relative_to(root).as_posix()
                yield split, label, inside, path.read_bytes() if read else b""
        return
    try:
        with tarfile.open(root) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                # Archives usually hold one folder around the splits.
                if member.isfile() and path.suffix.lower() in IMAGE_SUFFIXES:
                    if len(path.parts) < 3:
                        continue
                    split, label = path.parts[-3:-1]
                    data = archive.extractfile(member).read() if read else b""
                    yield split, label, "/".join(path.parts[-3:]), data
    except tarfile.TarError as error:
        raise ValueError(
            f"The archive {root} cannot be read ({error}): give a folder or a complete tar archive."
        ) from error


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
            for split, label, path, data in _images(config.root):
                if split == wanted:
                    yield bar.done, {"image": data, "label": label, "path": path}
                    bar.advance()
