"""A part of a source, for held-out splits."""

import numpy as np

from mmjax.data.bad_records import in_threads
from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset


def open_part(
    source: Source, start: float = 0.0, stop: float = 1.0, check_media: bool = True
) -> Subset:
    """A fraction of a source's examples: from `start` to `stop` of a fixed random permutation.

    Parts [0, 0.9) and [0.9, 1) of a source are disjoint and together make the whole source.

    Args:
      check_media: see `open_source`; the source itself is opened without.

    Raises:
      ValueError: fractions that select no examples.
    """
    first, last = (round(fraction * len(source)) for fraction in (start, stop))
    if not 0 <= first < last <= len(source):
        raise ValueError(
            f"A source of kind 'part' goes from {start} to {stop} of {len(source)} examples, which "
            "leaves none: use fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    part = Subset(source, np.random.default_rng(0).permutation(len(source))[first:last])
    if not check_media or not part.unchecked:
        return part
    bad = in_threads(part.is_bad, range(len(part)), f"Checking {part.name}")
    good = Subset(source, part.indices[~np.array(bad, bool)])
    good.unchecked = False
    return good
