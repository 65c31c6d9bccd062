"""A part of a source, for held-out splits."""

import numpy as np

from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset


def open_part(source: Source, start: float = 0.0, stop: float = 1.0) -> Subset:
    """A fraction of a source's examples: from `start` to `stop` of a fixed random permutation.

    Parts [0, 0.9) and [0.9, 1) of a source are disjoint and together make the whole source.

    Raises:
      ValueError: fractions that select no examples.
    """
    first, last = (round(fraction * len(source)) for fraction in (start, stop))
    if not 0 <= first < last <= len(source):
        raise ValueError(
            f"A source of kind 'part' goes from {start} to {stop} of {len(source)} examples, which "
            "leaves none: use fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    return Subset(source, np.random.default_rng(0).permutation(len(source))[first:last])
