"""A part of a source, for held-out splits."""

from collections.abc import Sequence

import numpy as np
from grain.experimental import index_shuffle

from mmjax.data.bad_records import in_threads
from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset

MOST = 1 << 24  # examples up to which their permutation is kept in memory, 8 bytes each


def open_part(
    source: Source,
    start: float = 0.0,
    stop: float = 1.0,
    by: str | None = None,
    check_media: bool = True,
) -> Subset:
    """A fraction of a source's examples: from `start` to `stop` of a fixed random permutation.

    Parts [0, 0.9) and [0.9, 1) of a source are disjoint and together make the whole source.

    Args:
      by: a field of the examples, such as `label` or `concept`, whose values are divided and not
        the examples: those of one value are in one part. Examples without it are in every part.
      check_media: see `open_source`; the source itself is opened without.

    Raises:
      ValueError: fractions that select no examples, or a field that has none or cannot be sorted.
    """
    values = [source.meta(i).get(by) for i in range(len(source))] if by else range(len(source))
    try:
        known = sorted({value for value in values if value is not None}) if by else values
    except TypeError:  # lists, or values of several types
        known = ()
    if by and not known:
        raise ValueError(
            f"A source of kind 'part' has by='{by}', and in {source.name} that is no field of "
            "numbers or of texts: name another one."
        )
    first, last = (round(fraction * len(known)) for fraction in (start, stop))
    if not 0 <= first < last <= len(known):
        what = f"values of '{by}'" if by else "examples"
        raise ValueError(
            f"A source of kind 'part' goes from {start} to {stop} of {len(known)} {what}, which "
            "leaves none: use fractions 0 ≤ start < stop ≤ 1, further apart."
        )
    if len(known) <= MOST:
        chosen = np.random.default_rng(0).permutation(len(known))[first:last]
    else:
        chosen = _Computed(len(known), first, last)
    if by:
        kept = {known[i] for i in chosen}
        chosen = np.flatnonzero([value is None or value in kept for value in values])
    part = Subset(source, chosen)
    if not check_media or not part.unchecked:
        return part
    bad = in_threads(part.is_bad, range(len(part)), f"Checking {part.name}")
    good = Subset(source, [i for i, is_bad in zip(chosen, bad, strict=True) if not is_bad])
    good.unchecked = False
    return good


class _Computed(Sequence[int]):
    """Places `first` to `last` of a permutation of `size` numbers, computed when they are read."""

    def __init__(self, size: int, first: int, last: int):
        self._size, self._places = size, range(first, last)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> int:
        return index_shuffle(self._places[place], max_index=self._size - 1, seed=0, rounds=4)
