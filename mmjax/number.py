"""Numbers that a user may set: NaN passes every test of a range that is written as `x < 0`."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

# Settings that may be infinite: there is no limit then.
_UNBOUNDED = ("logit_scale_max",)


def check_finite(value: Any, where: str) -> None:
    """Check that a setting holds no NaN and no infinity, nor anything within it.

    Args:
      value: anything; of mappings, tuples and lists what is inside is checked, of the rest numbers.
      where: its place, for the message, such as "config.optim".

    Raises:
      ValueError: names the first such number and its place.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, int) and not math.isfinite(value):
        if math.isnan(value) or where.rpartition(".")[2] not in _UNBOUNDED:
            raise ValueError(f"{where} is {value}: use a finite number.")
    elif isinstance(value, Mapping) or hasattr(value, "items"):
        for key, inner in value.items():
            check_finite(inner, f"{where}.{key}")
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            check_finite(inner, f"{where}[{index}]")
