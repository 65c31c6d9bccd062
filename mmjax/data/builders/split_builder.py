"""What our TFDS builders share."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds


class SplitBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose `_split_generators` gives the examples of each split.

    Args:
      root: where the raw data lies, for builders that read files.
    """

    # Nothing is downloaded; TFDS's own look-up of checksums needs a package it does not declare.
    url_infos: ClassVar[dict] = {}

    def __init__(self, *, root: str | os.PathLike | None = None, **kwargs):
        self._root = root
        super().__init__(**kwargs)

    def _generate_examples(self):
        raise NotImplementedError("_split_generators gives the examples of each split.")
