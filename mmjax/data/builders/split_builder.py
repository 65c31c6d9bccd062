"""The base class of this project's TFDS builders."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds


class SplitBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class: subclasses define `_features` and yield examples in `_split_generators`.

    Args:
      root: path of the raw data, for builders that read files.
    """

    # Nothing is downloaded; TFDS's checksum lookup needs a package that it does not declare.
    url_infos: ClassVar[dict] = {}
    HOMEPAGE: ClassVar[str | None] = None

    def __init__(self, *, root: str | os.PathLike | None = None, **kwargs):
        self._root = root
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict(self._features()),
            disable_shuffling=True,
        )

    def _features(self) -> dict[str, Any]:
        raise NotImplementedError("A builder says which features its examples have.")

    def _generate_examples(self):
        raise NotImplementedError("_split_generators gives the examples of each split.")


def drawings(
    size: int, channels: int, lists: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Features of a set of square drawings: `image`, `captions`, more lists of text, and texts."""
    text = tfds.features.Text()
    return {
        "image": tfds.features.Image(shape=(size, size, channels), encoding_format="png"),
        **{name: tfds.features.Sequence(text) for name in ("captions", *lists)},
        **dict.fromkeys(texts, text),
    }
