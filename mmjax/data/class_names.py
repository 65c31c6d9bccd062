"""Matching the labels of two lists of classes by class name, never by index."""

import collections
from collections.abc import Iterable, Sequence

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
      ValueError: a class that is not in `known`, or that is in it twice.
    """
    if own is None or known is None or list(own) == list(known[: len(own)]):
        return None
    place = {name: i for i, name in enumerate(known)}
    missing = [name for name in own if name not in place]
    count = collections.Counter(known)
    twice = sorted({name for name in own if count[name] > 1})
    if missing or twice:
        why = f"{', '.join(map(repr, missing))} of {what} is not among those of {whose}"
        if not missing:
            why = f"{', '.join(map(repr, twice))} comes twice in {whose}"
        raise ValueError(
            f"The classes do not match by name: {why} ({_some(known)}). Use the same names, or a "
            "data set with only those classes."
        )
    return np.asarray([place[name] for name in own], np.int64)


def mapped(labels: np.ndarray, place: np.ndarray | None) -> np.ndarray:
    """Labels `[N]` in the numbering that `label_map` maps to; -1, no label, stays."""
    return labels if place is None else np.where(labels < 0, labels, place[labels])


def widest(several: Iterable[Sequence[str]]) -> list[str] | None:
    """The longest of several lists of class names if it has the names of all; else None.

    To its indices `label_map` maps the labels of all of them.
    """
    several = [list(names) for names in several]
    longest = max(several, key=len, default=None)
    return longest if all(set(names) <= set(longest) for names in several) else None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
