"""The tools, by name."""

from collections.abc import Mapping, Sequence

from mmjax.config import nearest
from mmjax.tools.calculator import calculate
from mmjax.tools.crop import crop
from mmjax.tools.run import Tool


def _calculator(arguments: str, images: Sequence[bytes]) -> str:
    return calculate(arguments)


def _crop(arguments: str, images: Sequence[bytes]) -> bytes:
    if not images:
        raise ValueError("there is no image to crop")
    return crop(images[0], arguments)


TOOLS: Mapping[str, Tool] = {"calculator": _calculator, "crop": _crop}


def named(names: str) -> dict[str, Tool]:
    """The tools of these names, separated by commas.

    Raises:
      ValueError: an unknown one.
    """
    found = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in TOOLS:
            known = ", ".join(TOOLS)
            raise ValueError(f"There is no tool '{name}': use {known}.{nearest(name, TOOLS)}")
        found[name] = TOOLS[name]
    return found
