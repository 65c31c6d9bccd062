"""ESC-10: 400 environmental sounds of 5 seconds in 10 classes, a split for each of its 5 folds.

Piczak 2015, "ESC: Dataset for Environmental Sound Classification" (doi 10.1145/2733373.2806390),
CC BY 3.0.
"""

import collections
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.archive import files
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

CLASSES = (
    "dog bark",
    "rain",
    "sea waves",
    "baby cry",
    "clock tick",
    "person sneeze",
    "helicopter",
    "chainsaw",
    "rooster",
    "fire crackling",
)
FOLDS = tuple(f"fold{i}" for i in range(1, 6))
_BY_HAND = (
    "set root to its archive or folder, from github.com/karolpiczak/ESC-10 "
    "(files '<number> - <class>/<fold>-<clip>-<take>.ogg')."
)


def read_sounds(root: str | os.PathLike | None) -> dict[str, list[tuple[str, int, bytes]]]:
    """{fold: [(file name, class, OGG bytes), ...]}, sorted by class and name.

    Clips of one recording are in one fold, the first digit of the file's name.

    Args:
      root: a folder or tar archive that contains '<number> - <class>/<fold>-<clip>-<take>.ogg'.

    Raises:
      ValueError: no root, an archive that cannot be read, or sounds that are missing.
    """
    if root is None or not Path(root).exists():
        raise ValueError(f"There are no sounds of ESC-10 at {root}: {_BY_HAND}")
    found = collections.defaultdict(list)
    for path, data in files(Path(root), ".ogg", _BY_HAND):
        match = re.fullmatch(r"(\d+) - (.+)/([1-5])-\d+-[A-Z]\.ogg", "/".join(path.parts[-2:]))
        if match and match[2].lower() in CLASSES:
            number = CLASSES.index(match[2].lower())
            found[f"fold{match[3]}"].append((number, path.name, data))
    if set(found) != set(FOLDS):
        raise ValueError(
            f"{root} has the folds {sorted(found) or 'of no sound'}, and ESC-10 5 of them: "
            f"{_BY_HAND}"
        )
    counts = collections.Counter((fold, x[0]) for fold, clips in found.items() for x in clips)
    most = max(counts.values())
    for fold, number in itertools.product(FOLDS, range(len(CLASSES))):
        if counts[fold, number] < most:
            raise ValueError(
                f"{root} has {counts[fold, number]} sounds of '{CLASSES[number]}' in {fold} and "
                f"{most} in others, so that some are missing: {_BY_HAND}"
            )
    return {
        fold: [(name, number, data) for number, name, data in sorted(found[fold])] for fold in FOLDS
    }


class Esc10(SplitBuilder):
    """Environmental sounds, `audio` as OGG bytes; a split is a fold.

    Join them with `+` and leave one out: "fold1+fold2+fold3+fold4".
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://github.com/karolpiczak/ESC-10"

    def _features(self) -> dict[str, Any]:
        return {
            "audio": tfds.features.Text(),  # bytes: TFDS's Audio needs TensorFlow
            "label": tfds.features.ClassLabel(names=CLASSES),
            "file": tfds.features.Text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {fold: self._examples(fold, x) for fold, x in read_sounds(self._root).items()}

    def _examples(self, fold: str, sounds: list) -> Iterator[tuple[int, dict]]:
        with Progress(f"Packing sounds of {fold}", len(sounds)) as bar:
            for i, (name, number, data) in enumerate(sounds):
                yield i, {"audio": data, "label": number, "file": name}
                bar.advance()
