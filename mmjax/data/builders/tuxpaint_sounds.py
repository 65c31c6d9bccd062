"""The stamps of tuxpaint that make a noise: triplets of an image, a caption and a sound."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.split_builder import drawings
from mmjax.data.builders.tuxpaint import CATEGORIES, SIZE, Stamp, Tuxpaint


class TuxpaintSounds(Tuxpaint):
    """The stamps that have the noise that the thing makes, `audio` as bytes of OGG or WAV.

    Images, captions and splits are those of `Tuxpaint`: no concept is in two splits. Spoken names
    are not among the sounds.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _features(self) -> dict[str, Any]:
        return {
            **drawings(SIZE, 4, (), ("category", "concept", "path")),
            "label": tfds.features.ClassLabel(names=list(CATEGORIES)),
            "audio": tfds.features.Text(),  # bytes: TFDS's Audio needs TensorFlow
        }

    def _examples(
        self, stamps: list[Stamp], image_of: dict[str, bytes], concept_of: dict[str, str]
    ) -> Iterator[tuple[int, dict]]:
        for i, stamp in enumerate(stamps):
            sounds = zip(stamp.sounds, stamp.sound_languages, stamp.spoken)
            noises = [(path, language) for path, language, said in sounds if not said]
            # A digit or a letter is said in many languages: that is its name.
            if len(noises) == 1 and not noises[0][1]:
                category = stamp.path.split("/")[0]
                found = {"category": category, "label": category, "path": stamp.path}
                found |= {"image": image_of[stamp.path], "concept": concept_of[stamp.path]}
                audio = (self.tree / noises[0][0]).read_bytes()
                yield i, {**found, "captions": [stamp.caption], "audio": audio}
