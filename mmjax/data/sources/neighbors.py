"""Examples with the one after them in the same recording, in a field `next`."""

from collections.abc import Mapping
from typing import Any

from mmjax.data.source import Source


def open_neighbors(source: Source, group: str) -> "Neighbors":
    """A source whose examples have `next`, the following example with the same value of the field
    `group` (the name of a recording); the last one of each has none. For `join_next`.

    Raises:
      ValueError: an example without the field.
    """
    return Neighbors(source, group)


class Neighbors(Source):
    """See `open_neighbors`."""

    def __init__(self, source: Source, group: str):
        self.name, self.class_names, self._source = source.name, source.class_names, source
        last: dict[Any, int] = {}
        self._next: dict[int, int] = {}
        for i in range(len(source)):
            found = source.meta(i)
            if group not in found:
                raise ValueError(
                    f"Example {i} of {source.name} has no field '{group}'; it has "
                    f"{', '.join(sorted(found))}: set group to one of them."
                )
            if found[group] in last:
                self._next[last[found[group]]] = i
            last[found[group]] = i

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        if index not in self._next:
            return example
        return {**example, "next": self._source[self._next[index]]}

    def meta(self, index: int) -> Mapping[str, Any]:
        """See `Source.meta`."""
        return self._source.meta(index)
