"""A source whose class names are only those that occur in it."""

import numpy as np

from mmjax.data.source import Source
from mmjax.data.sources.renumbered import Renumbered


def open_occurring(source: Source) -> Source:
    """The source without the class names that no example has as `label`.

    So names of the examples that are left out of a training set, and stay in its list of classes,
    are not used as negatives.

    Raises:
      ValueError: a source without class names, or without any label.
    """
    if source.class_names is None:
        raise ValueError(f"{source.name} has no class names, of which 'occurring' keeps some.")
    labels = [source.meta(i).get("label", -1) for i in range(len(source))]
    kept = sorted({int(k) for k in labels if k is not None and k >= 0})
    if not kept:
        raise ValueError(f"{source.name} has no example with a label, so no name occurs.")
    return Occurring(source, kept)


class Occurring(Renumbered):
    """See `open_occurring`; `kept` are the indices of the class names that occur."""

    def __init__(self, source: Source, kept: list[int]):
        self.name, self._source = source.name, source
        self.class_names = [source.class_names[k] for k in kept]
        self._place = np.full(len(source.class_names), -1)
        self._place[kept] = np.arange(len(kept))
