"""FSDD: 3,000 spoken digits of 6 speakers at 8 kHz, a split for each speaker.

Free Spoken Digit Dataset, Jackson et al. (doi 10.5281/zenodo.1342401), CC-BY-SA 4.0.
"""

import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.archive import files
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.process.progress import Progress

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_BY_HAND = (
    "set root to its archive or folder, from github.com/Jakobovski/free-spoken-digit-dataset "
    "(files recordings/<digit>_<speaker>_<take>.wav)."
)


def read_recordings(root: str | os.PathLike | None) -> dict[str, list[tuple[int, int, bytes]]]:
    """{speaker: [(digit, take, WAV bytes), ...]}, sorted by digit and take.

    Args:
      root: a folder or tar archive that contains recordings/<digit>_<speaker>_<take>.wav.

    Raises:
      ValueError: no root, no recordings, or an archive that cannot be read.
    """
    if root is None or not Path(root).exists():
        raise ValueError(f"There are no recordings of spoken digits at {root}: {_BY_HAND}")
    found = collections.defaultdict(list)
    for path, data in files(Path(root), ".wav", _BY_HAND):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.wav", path.name)
        if match:
            found[match[2]].append((int(match[1]), int(match[3]), data))
    if set(found) != set(SPEAKERS):
        raise ValueError(
            f"{root} has recordings of {sorted(found) or 'nobody'}, and FSDD those of "
            f"{', '.join(SPEAKERS)}: {_BY_HAND}"
        )
    return {speaker: sorted(found[speaker]) for speaker in SPEAKERS}


class Fsdd(SplitBuilder):
    """Spoken digits, `audio` as WAV bytes with its word as caption; a split is a speaker.

    Join them with `+` and leave one out: "george+jackson+lucas+nicolas".
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.1.0: with captions
    HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"

    def _features(self) -> dict[str, Any]:
        return {
            "audio": tfds.features.Text(),  # bytes: TFDS's Audio needs TensorFlow
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "label": tfds.features.ClassLabel(num_classes=10),
            "speaker": tfds.features.Text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        recordings = read_recordings(self._root)
        return {speaker: self._examples(speaker, takes) for speaker, takes in recordings.items()}

    def _examples(self, speaker: str, takes: list) -> Iterator[tuple[int, dict]]:
        with Progress(f"Packing spoken digits of {speaker}", len(takes)) as bar:
            for i, (digit, _, data) in enumerate(takes):
                said = {"captions": [WORDS[digit]], "label": digit}
                yield i, {"audio": data, "speaker": speaker, **said}
                bar.advance()
