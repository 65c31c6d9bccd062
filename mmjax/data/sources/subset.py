"""Some examples of a source, as a source."""

from collections.abc import Sequence
from typing import Any

from mmjax.data.source import Source


class Subset(Source):
    """Some examples of a source, in the order given by their indices."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.source, self.indices = source, indices
        self.name = f"part of {getattr(source, 'name', 'a source')}"
        self.class_names = getattr(source, "class_names", None)
        self.unchecked = getattr(source, "unchecked", False)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        return self.source.meta(int(self.indices[index]))

    def is_bad(self, index: int) -> bool:
        """See `Source.is_bad`."""
        return self.source.is_bad(int(self.indices[index]))
