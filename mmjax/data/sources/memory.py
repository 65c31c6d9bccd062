"""A source whose examples stay in memory once they are read and decoded."""

from collections.abc import Callable
from typing import Any

from mmjax.data.source import Source


class InMemory(Source):
    """`source` after `transform`, each example made at its first use and kept.

    For sets that fit: an example of a small drawing costs more to parse and decode than to augment.

    Args:
      transform: (example, rng) -> example, without randomness; its rng is None.
    """

    def __init__(self, source: Source, transform: Callable[[dict, None], dict]):
        self.name, self.class_names = source.name, source.class_names
        self._source, self._transform = source, transform
        self._examples: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Two threads may both make an example; they make the same one.
        if index not in self._examples:
            self._examples[index] = self._transform(self._source[index], None)
        return self._examples[index]

    def meta(self, index: int) -> dict[str, Any]:
        """That of the source, before the transform."""
        return self._source.meta(index)
