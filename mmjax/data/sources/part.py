"""A part of a source, for holding out the rest."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset


def open_part(
    source: Mapping[str, Any],
    start: float = 0.0,
    stop: float = 1.0,
    *,
    workdir: str | os.PathLike | None = None,
) -> Subset:
    """The examples of a source from one fraction to another of them, shuffled the same each time.

    Parts [0, 0.9) and [0.9, 1) of a source share no example and make it whole.

    Args:
      source: its config.

    Raises:
      ValueError: fractions that leave nothing, or a source that cannot be opened.
    """
    from mmjax.data.open_source import open_source

    whole = open_source(source, workdir=workdir)
    first, last = (round(share * len(whole)) for share in (start, stop))
    if not 0 <= first < last <= len(whole):
        raise ValueError(
            f"A source of kind 'part' goes from {start} to {stop} of {len(whole)} examples, which "
            "leaves none: use fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    return Subset(whole, np.random.default_rng(0).permutation(len(whole))[first:last])
