"""Pairs: two labeled sources joined by class, such as spoken and written digits."""

from typing import Any

import numpy as np

from mmjax.data.draws import row_rng
from mmjax.data.source import Source
from mmjax.data.sources.renumbered import renumbered


class Paired(Source):
    """Examples of one source, each paired with an example of another that has the same label.

    For a clean test set, pair only test splits of both sources.

    Args:
      first, second: sources with labels of the same classes, in any order.
      length: number of pairs. Pair i has example i mod N of the first source, and an example of the
        second drawn by the seed and i.

    Raises:
      ValueError: sources without labels or with different classes, or a class without examples in
        the second source.
    """

    def __init__(self, first: Source, second: Source, length: int, seed: int = 0):
        if length < 1:
            raise ValueError(f"A paired source has length {length}: use the number of pairs.")
        names = [source.class_names for source in (first, second)]
        if None in names or set(names[0]) != set(names[1]):
            raise ValueError(
                f"{first.name} has the classes {first.class_names} and {second.name} has "
                f"{second.class_names}: only sources with the same classes can be paired."
            )
        self.name = f"{first.name} with {second.name}"
        self.class_names = names[0]
        second = renumbered(second, self.class_names, first.name)
        self._first, self._second, self._length, self._seed = first, second, length, seed
        labels = np.asarray([second.meta(i)["label"] for i in range(len(second))])
        self._of_class = [np.flatnonzero(labels == c) for c in range(len(self.class_names))]

    def __len__(self) -> int:
        return self._length

    def _partner(self, i: int, label: int) -> int:
        choices = self._of_class[label]
        if not len(choices):
            raise ValueError(f"{self._second.name} has no example of {self.class_names[label]}.")
        return int(choices[row_rng(self._seed, i).integers(len(choices))])

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = self._first[self._place(index)]
        return _both(first, self._second[self._partner(index, first["label"])])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        first = self._first.meta(self._place(index))
        return _both(first, self._second.meta(self._partner(index, first["label"])))

    def _place(self, index: int) -> int:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return index % len(self._first)


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {**second, **first, "key": f"{first['key']} with {second['key']}"}
