"""A part of a source, for holding out the rest."""

import numpy as np

from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset


def open_part(source: Source, start: float = 0.0, stop: float = 1.0) -> Subset:
    """The examples of a source from one fraction to another of them, shuffled the same each time.

    Parts [0, 0.9) and [0.9, 1) of a source share no example and make it whole.

    Raises:
      ValueError: fractions that leave nothing.
    """
    first, last = (round(share * len(source)) for share in (start, stop))
    if not 0 <= first < last <= len(source):
        raise ValueError(
            f"A source of kind 'part' goes from {start} to {stop} of {len(source)} examples, which "
            "leaves none: use fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    return Subset(source, np.random.default_rng(0).permutation(len(source))[first:last])
