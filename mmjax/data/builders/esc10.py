"""ESC-10: 400 environmental sounds of 5 seconds in 10 classes, a split for each of the 5 folds.

Piczak 2015, "ESC: Dataset for Environmental Sound Classification" (doi 10.1145/2733373.2806390),
CC-BY 3.0.
"""

import collections
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

CLASSES = (
    *("dog bark", "rain", "sea waves", "baby cry", "clock tick", "person sneeze", "helicopter"),
    *("chainsaw", "rooster", "fire crackling"),
)
FOLDS = tuple(f"fold{i}" for i in range(1, 6))
_PATH = re.compile(r"(?:.*/)?(\d{3}) - ([^/]+)/(([1-5])-[^/]+\.ogg)")
_BY_HAND = (
    "set root to its archive or folder, from github.com/karolpiczak/ESC-10 (files "
    "'001 - Dog bark/1-100032-A.ogg', where the first digit of the file is the fold)."
)


def read_sounds(root: str | os.PathLike | None) -> dict[str, list[tuple[str, str, bytes]]]:
    """{fold: [(file name, class, OGG bytes), ...]}, sorted by class and file.

    Args:
      root: a folder or tar archive that contains `<number> - <class>/<fold>-<clip>.ogg`.

    Raises:
      ValueError: no root, no sounds, other classes, or an archive that cannot be read.
    """
    if root is None or not Path(root).exists():
        raise ValueError(f"There are no sounds of ESC-10 at {root}: {_BY_HAND}")
    found = collections.defaultdict(list)
    for path, data in _files(Path(root)):
        match = _PATH.fullmatch(path)
        if match:
            found[f"fold{match[4]}"].append((match[1], match[3], match[2].lower(), data))
    classes = {name for sounds in found.values() for _, _, name, _ in sounds}
    if classes != set(CLASSES) or set(found) != set(FOLDS):
        raise ValueError(
            f"{root} has the folds {sorted(found)} with sounds of {sorted(classes)}, and ESC-10 has "
            f"5 folds and {', '.join(CLASSES)}: {_BY_HAND}"
        )
    return {fold: [sound[1:] for sound in sorted(found[fold])] for fold in FOLDS}


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    if root.is_dir():
        for path in root.rglob("*.ogg"):
            yield path.relative_to(root).as_posix(), path.read_bytes()
        return
    try:
        with tarfile.open(root) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".ogg"):
                    yield member.name, archive.extractfile(member).read()
    except tarfile.TarError as error:
        raise ValueError(f"The archive {root} cannot be read ({error}): {_BY_HAND}") from error


class Esc10(SplitBuilder):
    """Environmental sounds, `audio` as OGG bytes, with their class as caption; a split is a fold.

    Join them with `+` and leave one out: "fold1+fold2+fold3+fold4". Clips of one recording are in
    the same fold.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://github.com/karolpiczak/ESC-10"

    def _features(self) -> dict[str, Any]:
        return {
            "audio": tfds.features.Text(),  # bytes: TFDS's Audio needs TensorFlow
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "key": tfds.features.Text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {fold: self._examples(fold, x) for fold, x in read_sounds(self._root).items()}

    def _examples(self, fold: str, sounds: list) -> Iterator[tuple[int, dict]]:
        with Progress(f"Packing sounds of {fold}", len(sounds)) as bar:
            for i, (key, name, data) in enumerate(sounds):
                yield i, {"audio": data, "captions": [name], "label": name, "key": key}
                bar.advance()
