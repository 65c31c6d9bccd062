"""Calls of tools in a model's text.

A call ends the model's turn:

    3, 5, 7. <tool calculator>3 + 5 + 7</tool>

and its result is the next message, by the role "tool", after which the model goes on. So a result
is never learned, as losses are on the assistant's turns alone.
"""

import re
from typing import NamedTuple

OPEN, CLOSE = "<tool ", "</tool>"
_CALL = re.compile(r"<tool ([^<>]*)>(.*?)</tool>", re.DOTALL)


class Call(NamedTuple):
    """The name of a tool, and its arguments as the model wrote them."""

    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{OPEN}{self.name}>{self.arguments}{CLOSE}"


def read_call(text: str) -> Call | None:
    """The first call in a text; None: it has none, or one that is not complete."""
    found = _CALL.search(text)
    return Call(found[1].strip(), found[2].strip()) if found else None


def until_call(text: str) -> str:
    """A text up to the end of its first call, or all of it."""
    found = _CALL.search(text)
    return text[: found.end()] if found else text
