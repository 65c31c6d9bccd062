"""Values that may change with the step: a number, or points with linear interpolation.

    schedule(0.996, step)                          # always 0.996
    schedule(((0, 0.0), (1000, 0.4)), step)        # rises to 0.4 at step 1000 and stays there

A pure function of the step, so a resumed run continues exactly. Used for loss weights, the EMA
decay, mixture weights and learning rates.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.number import check_finite

Schedule = float | Sequence[tuple[int, float]]


def schedule(value: Schedule, step: Any) -> Any:
    """The value at a step.

    Args:
      value: a number, or ((step, value), ...) with increasing steps: linear between two points,
        constant before the first and after the last. See `check_schedule`.
      step: an int or NumPy array on the host, or a (traced) JAX array.

    Returns:
      A number where `value` is one; else a float, or a float32 array for a JAX array.
    """
    if is_number(value):
        return value
    steps, values = zip(*value)
    if isinstance(step, jax.Array):
        return jnp.interp(
            step.astype(jnp.float32),
            jnp.asarray(steps, jnp.float32),
            jnp.asarray(values, jnp.float32),
        )
    return np.interp(step, steps, values)


def is_number(value: Any) -> bool:
    """Whether a schedule is constant."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_schedule(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Check a schedule of the config.

    Args:
      where: its place in the config, for the message.
      low, high: the range, ends included, that every value must be in.

    Raises:
      ValueError: neither a number nor points, steps that do not increase, or a value out of range.
    """
    if is_number(value):
        values = (value,)
    else:
        try:
            points = [(step, y) for step, y in value]
            ok = points and all(is_number(step) and is_number(y) for step, y in points)
        except (TypeError, ValueError):
            ok = False
        if not ok:
            raise ValueError(
                f"{where} is {value!r}: use a number, or ((step, value), ...) such as "
                "((0, 0.0), (1000, 1.0))."
            )
        steps, values = zip(*points)
        if any(a >= b for a, b in zip(steps, steps[1:])):
            raise ValueError(f"The steps of {where} do not increase: {list(steps)}.")
    check_finite(value, where)
    wrong = [y for y in values if not low <= y <= high]
    if wrong:
        raise ValueError(f"{where} has the value {wrong[0]}: it must be in [{low}, {high}].")
