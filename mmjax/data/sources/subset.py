"""Some examples of a source, as a source."""

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some examples of a source, in the order given."""

    source: Any
    indices: Sequence[int]

    @property
    def name(self) -> str:
        return f"part of {getattr(self.source, 'name', 'a source')}"

    @property
    def class_names(self) -> list[str] | None:
        return getattr(self.source, "class_names", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[int(self.indices[i])]
