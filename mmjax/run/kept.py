"""What evaluators and the report share: outputs of a whole split, computed once."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from mmjax.system import Variables

LIMIT = 1 << 29  # bytes

T = TypeVar("T")


class Kept:
    """Results by key, while the same variables are evaluated: between `during` and its end.

    Outside of it, and for other variables, everything is computed anew. A result that would exceed
    the limit is not kept, so that what is kept before it stays.

    Args:
      limit: bytes of all arrays.
    """

    def __init__(self, limit: int = LIMIT):
        self._limit, self._variables, self._found = limit, None, {}

    @contextlib.contextmanager
    def during(self, variables: Variables) -> Iterator[None]:
        """Keep results of these variables until the end of the `with`."""
        self._variables = variables
        try:
            yield
        finally:
            self._variables, self._found = None, {}

    def once(self, variables: Variables, key: str, make: Callable[[], T]) -> T:
        """`make()`, or what it returned before for this key; its arrays are read-only then.

        Args:
          make: returns a tuple or a dataclass, of arrays and small things.
        """
        if self._variables is None or variables is not self._variables:
            return make()
        if key not in self._found:
            found = make()
            arrays = _arrays(found)
            for array in arrays:
                array.flags.writeable = False  # several read it
            used = sum(x.nbytes for kept in self._found.values() for x in _arrays(kept))
            if used + sum(x.nbytes for x in arrays) > self._limit:
                return found
            self._found[key] = found
        return self._found[key]


def _arrays(value: Any) -> list[np.ndarray]:
    parts = vars(value).values() if dataclasses.is_dataclass(value) else value
    return [x for x in parts if isinstance(x, np.ndarray)]
