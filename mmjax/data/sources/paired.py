"""Pairs: two labelled sources joined by class, such as spoken and written digits."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.draws import row_rng


def open_paired(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    length: int,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
) -> "PairedSource":
    """Examples of one source, each beside an example of another one with the same label.

    Nothing of a test set is in a training set if both of its sources are split so.

    Args:
      first, second: the sources' configs; both have labels, and the same classes.
      length: number of pairs. Pair i has example i mod N of the first, and of the second one that
        the seed and i draw.

    Raises:
      ValueError: sources without labels, or of other classes, or a class that the second lacks.
    """
    from mmjax.data.open_source import open_source

    sources = [open_source(config, workdir=workdir) for config in (first, second)]
    return PairedSource(*sources, length, seed)


class PairedSource:
    """See `open_paired`."""

    def __init__(self, first: Any, second: Any, length: int, seed: int):
        if length < 1:
            raise ValueError(f"A paired source has length {length}: use the number of pairs.")
        if first.class_names != second.class_names or not first.class_names:
            raise ValueError(
                f"{first.name} has the classes {first.class_names} and {second.name} has "
                f"{second.class_names}: only sources with the same classes can be paired."
            )
        self.name = f"{first.name} with {second.name}"
        self.class_names = first.class_names
        self._first, self._second, self._length, self._seed = first, second, length, seed
        labels = np.asarray([second[i]["label"] for i in range(len(second))])
        self._of_class = [np.flatnonzero(labels == c) for c in range(len(self.class_names))]

    def __len__(self) -> int:
        return self._length

    def _partner(self, i: int, label: int) -> int:
        choices = self._of_class[label]
        if not len(choices):
            raise ValueError(f"{self._second.name} has no example of {self.class_names[label]}.")
        return int(choices[row_rng(self._seed, i).integers(len(choices))])

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < self._length:
            raise IndexError(i)
        first = self._first[i % len(self._first)]
        second = self._second[self._partner(i, first["label"])]
        return {**second, **first, "key": f"{first['key']} with {second['key']}"}
