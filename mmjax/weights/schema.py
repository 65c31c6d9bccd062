"""The schema of a published model's settings: the type, range and maximum of each.

A family declares its settings by their defaults (`DEFAULTS`, `VISION`, `TEXT`, ... in its file); a
value has the type of its default, is finite, at least 1 where it is whole (an id or index: 0), and
at most what `MAXIMA` allows, which is far above every published model. So no file makes `load`
build, or name the tensors of, what no file holds.
"""

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

# The first pattern that is the whole name of a setting counts.
MAXIMA = (
    (r".*_(id|ids|index|indexes|seed)|architecture", 2**31 - 1),
    (r".*_channels", 2**20),
    (r".*(layer|depth|block|repeat|stage|group)s?.*", 1_000),
    (r".*head.*", 2**16),
    (r".*vocab.*", 2**24),
    (r".*(embedding|forward|key)_length", 2**20),
    (r".*(position|length|ctx|context|samples|sliding_window).*", 2**27),
    (r".*(image|img|spec|patch|window|stride|kernel|frame|tubelet|resolution|mel|bins).*", 2**14),
    (r".*", 2**20),
)
_FROM_ZERO = re.compile(r".*_(id|index|indexes)|max_window_layers")
LONGEST = 10_000  # values of a list
# Settings of `config.model` that count layers, each of which has tensors of its own.
_DEPTHS = re.compile(r"(.*_)?(depth|depths|layers)")


class Maybe(NamedTuple):
    """In place of a default: None, and a given value is like this one."""

    like: Any


def fits(name: str, value: Any, default: Any) -> bool:
    """Whether a value of a JSON file is one of a setting with this default; None: any."""
    if isinstance(default, Maybe):
        return value is None or fits(name, value, default.like)
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and _is_finite(value)
    if isinstance(default, int):
        smallest = 0 if _FROM_ZERO.fullmatch(name) else 1
        return isinstance(value, int) and smallest <= value <= maximum(name)
    if isinstance(default, list | tuple):
        if not isinstance(value, list | tuple) or len(value) > LONGEST:
            return False
        return not default or all(fits(name, x, default[0]) for x in value)
    return isinstance(value, type(default))


def maximum(name: str) -> int:
    """The largest value of a whole setting."""
    return next(most for pattern, most in MAXIMA if re.fullmatch(pattern, name))


def _is_finite(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def check(name: str, value: Any, default: Any, where: object) -> Any:
    """The value of a setting.

    Args:
      where: the file or its section, for the message.

    Raises:
      ValueError: it does not fit the schema.
    """
    if not fits(name, value, default):
        most = f", at most {maximum(name):,}," if type(default) is type(value) is int else ""
        raise ValueError(
            f"'{where}' has {name} {reprlib.repr(value)}, where a value like {default!r}{most} is "
            "needed: get it again."
        )
    return value


def check_depths(config: Mapping[str, Any], tensors: int, where: object) -> None:
    """Check the numbers of layers of `config.model`, before names of all layers are made.

    Args:
      tensors: how many the file has, by its header.

    Raises:
      ValueError: more layers than tensors.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_depths(value, tensors, where)
        elif _DEPTHS.fullmatch(name):
            layers = value if isinstance(value, list | tuple) else [value]
            total = sum(x for x in layers if isinstance(x, int))
            if total > tensors:
                raise ValueError(
                    f"'{where}' describes {total:,} layers ({name}), and its file has {tensors:,} "
                    "tensors: config and weights are from different models."
                )
