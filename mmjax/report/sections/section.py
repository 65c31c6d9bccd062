"""What a section of the report is."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mmjax.report.evaluated import Evaluated


@dataclasses.dataclass(frozen=True)
class Section:
    """A section that shows what a model makes of examples of an evaluation.

    Attributes:
      title: its heading.
      collect: the section's data of an evaluation, as plain arrays; None if it has none. All
        processes call it, in the same order.
      html: (these data, the seed of the random choice) -> HTML; process 0 calls it.
      once: the section shows only the first evaluation that has data.
    """

    title: str
    collect: Callable[[Evaluated], Any | None]
    html: Callable[[Any, int], str]
    once: bool = False
