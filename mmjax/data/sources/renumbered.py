"""A source whose labels are numbered in the order of another list of class names."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.class_names import label_map, mapped
from mmjax.data.source import Source


def renumbered(source: Source, names: Sequence[str], whose: str) -> Source:
    """The source with `names` as its class names, and its labels, also those of regions, as
    indices into them.

    Args:
      names: has every class name of the source, in any order. A source without class names keeps
        its labels.
      whose: where `names` come from, for messages ("the head in runs/a").

    Raises:
      ValueError: a class of the source that is not in `names`.
    """
    same = source.class_names is not None and list(source.class_names) == list(names)
    return source if same else Renumbered(source, names, whose)


class Renumbered(Source):
    """See `renumbered`."""

    def __init__(self, source: Source, names: Sequence[str], whose: str):
        self.name, self.class_names = source.name, list(names)
        self.unchecked = getattr(source, "unchecked", False)
        self._source, self.inputs = source, [source]
        self._place = label_map(source.class_names, names, source.name, whose)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._mapped(self._source[index])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return self._mapped(self._source.meta(index))

    def is_bad(self, index: int) -> bool:
        """See `Source.is_bad`."""
        return self._source.is_bad(index)

    def _mapped(self, example: dict[str, Any]) -> dict[str, Any]:
        label, regions = example.get("label"), example.get("regions")
        if self._place is not None and regions is not None:
            labels = mapped(regions.labels, self._place).astype(np.int32)
            example = {**example, "regions": dataclasses.replace(regions, labels=labels)}
        # A label may also be a class name, which `class_names` resolves, or -1: none.
        if self._place is None or not isinstance(label, int | np.integer) or label < 0:
            return example
        if label >= len(self._place):
            raise ValueError(f"the label {label} is none of its {len(self._place)} classes")
        return {**example, "label": int(self._place[label])}
