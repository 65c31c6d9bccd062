"""Several sources concatenated to one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.class_names import widest
from mmjax.data.source import Source
from mmjax.data.sources.renumbered import renumbered


def open_joined(sources: Sequence[Source]) -> "Joined":
    """The concatenated examples of several sources, in the order given.

    Raises:
      ValueError: no sources.
    """
    if not sources:
        raise ValueError("A source of kind 'joined' has an empty list of sources: name some.")
    return Joined(sources)


class Joined(Source):
    """See `open_joined`. Labels are dropped unless one part has the classes of all, by name; its
    corpus is that of its parts if all have one."""

    def __init__(self, parts: Sequence[Source]):
        names = [part.class_names for part in parts]
        self.class_names = None if None in names else widest(names)
        if self.class_names is not None:
            parts = [renumbered(part, self.class_names, "the others") for part in parts]
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.name = " + ".join(part.name for part in self._parts)
        self.unchecked = any(getattr(part, "unchecked", False) for part in self._parts)
        corpora = [getattr(part, "corpus", None) for part in self._parts]
        self.corpus = None if None in corpora else [text for texts in corpora for text in texts]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Which part an example is in, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, not one numbered {index}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = self.locate(index)
        return self._labeled(self._parts[part][place])

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        part, place = self.locate(index)
        return self._labeled(self._parts[part].meta(place))

    def is_bad(self, index: int) -> bool:
        """See `Source.is_bad`."""
        part, place = self.locate(index)
        return self._parts[part].is_bad(place)

    def _labeled(self, example: dict[str, Any]) -> dict[str, Any]:
        if self.class_names is None:
            example = {k: v for k, v in example.items() if k != "label"}
        return example
