"""Matching the labels of two lists of classes by class name, never by index."""

from collections.abc import Sequence

import numpy as np


def label_map(
    own: Sequence[str] | None, known: Sequence[str] | None, what: str, whose: str
) -> np.ndarray | None:
    """`[classes]` int64: the index of each class of `own` in `known`.

    Args:
      own: class names of the labels to map; known: those to map to. None: unknown.
      what, whose: where `own` and `known` come from, for messages ("config.evals.test.source").

    Returns:
      None if the indices already agree, or one of the two has no names.

    Raises:
      ValueError: a class that is not in `known`, or a duplicate name there.
    """
    if own is None or known is None or list(own) == list(known[: len(own)]):
        return None
    place = {name: i for i, name in enumerate(known)}
    missing = [name for name in own if name not in place]
    if missing or len(place) < len(known):
        twice = sorted({name for name in known if list(known).count(name) > 1})
        why = f"{', '.join(map(repr, missing))} of {what} is not among those of {whose}"
        if not missing:
            why = f"{', '.join(map(repr, twice))} comes twice in {whose}"
        raise ValueError(
            f"The classes do not match by name: {why} ({_some(known)}). Use the same names, or a "
            "data set with only those classes."
        )
    return np.asarray([place[name] for name in own], np.int64)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
