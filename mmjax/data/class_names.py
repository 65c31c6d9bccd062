"""Labels by the names of their classes, never by their numbers."""

from collections.abc import Sequence

import numpy as np


def label_map(
    own: Sequence[str] | None, known: Sequence[str] | None, what: str, whose: str
) -> np.ndarray | None:
    """`[classes]` int64: the number that each class of one list has in another.

    Args:
      own: class names of the labels to translate; known: those to translate to. None: unknown.
      what: has `own`, whose: has `known`, for the message ("config.evals.test.source").

    Returns:
      None where the numbers are the same already, or one of the two has no names.

    Raises:
      ValueError: a class that is not among `known`, or a name that comes twice there.
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
            "set with those classes alone."
        )
    return np.asarray([place[name] for name in own], np.int64)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
