"""Several sources after each other, as one."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def open_joined(
    sources: Sequence[Mapping[str, Any]], *, workdir: str | os.PathLike | None = None
) -> "Joined":
    """The examples of several sources, in the order given: each weighs as many as it has.

    Args:
      sources: a config each.

    Raises:
      ValueError: no sources, or some that cannot be opened.
    """
    from mmjax.data.open_source import open_source

    if not sources:
        raise ValueError("A source of kind 'joined' has an empty list of sources: name some.")
    return Joined([open_source(source, workdir=workdir) for source in sources])


class Joined:
    """See `open_joined`. Labels are kept where all parts have the same classes, else left out."""

    def __init__(self, parts: Sequence[Any]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.name = " + ".join(part.name for part in self._parts)
        names = self._parts[0].class_names
        same = all(part.class_names == names for part in self._parts)
        self.class_names = names if same else None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, not one numbered {index}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[part - 1]) if part else 0
        example = self._parts[part][index - before]
        if self.class_names is None:
            example = {k: v for k, v in example.items() if k != "label"}
        return example
