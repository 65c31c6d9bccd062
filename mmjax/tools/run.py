"""Running the tools that a model calls."""

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mmjax.config import nearest
from mmjax.data.text.calls import Call
from mmjax.data.text.image_places import PLACE
from mmjax.data.transforms.decode import decode_image

SECONDS = 20.0  # that a tool may take
LOADING = 600.0  # that the first call of a tool with a model may take
LONGEST = 500  # characters of a result


class Given(NamedTuple):
    """What a conversation has, for its tools: images as the bytes of files, paths of recordings."""

    images: Sequence[bytes] = ()
    audio: Sequence[str] = ()

    def image(self) -> bytes:
        """The latest image, which may be the result of a tool.

        Raises:
          ValueError: there is none.
        """
        if not self.images:
            raise ValueError("there is no image")
        return self.images[-1]


# (arguments, what the conversation has) -> a text, or an image as the bytes of a file.
Tool = Callable[[str, Given], str | bytes]


class Loaded:
    """A tool that is loaded at its first call, if `load` was not called before.

    Args:
      load: gives the tool; where it fails, the next call tries again.
      most: seconds that a later call may take.
    """

    def __init__(self, load: Callable[[], Tool], most: float):
        self._load, self._most, self._lock = load, most, threading.Lock()
        self._tool: Tool | None = None

    @property
    def seconds(self) -> float:
        """How long the next call may take."""
        return LOADING if self._tool is None else self._most

    def load(self) -> Tool:
        """The tool itself; raises what loading it raises."""
        with self._lock:  # calls of several threads wait for one loading
            if self._tool is None:
                self._tool = self._load()
            return self._tool

    def __call__(self, arguments: str, given: Given) -> str | bytes:
        return self.load()(arguments, given)


def run(
    call: Call,
    tools: Mapping[str, Tool],
    images: Sequence[bytes] = (),
    audio: Sequence[str] = (),
    seconds: float = SECONDS,
) -> str | bytes:
    """The result of a call; whatever goes wrong is a text too, for the model to read.

    A text has at most `LONGEST` characters and no `PLACE`, as no image comes with it; an image can
    be decoded.

    Args:
      seconds: that the tool may take, unless it is `Loaded`, which has its own limit.
    """
    if call.name not in tools:
        known = ", ".join(tools) or "none"
        return _text(
            f"error: there is no tool '{call.name}' (there are: {known})."
            f"{nearest(call.name, tools)}"
        )
    tool = tools[call.name]
    seconds = tool.seconds if isinstance(tool, Loaded) else seconds
    future: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        try:
            result = tool(call.arguments, Given(images, audio))
            if isinstance(result, bytes):
                decode_image(result)  # raises ValueError where it is no image
            future.set_result(result)
        except Exception as error:  # a tool of a user's own may raise anything
            future.set_exception(error)

    # A daemon, as Python cannot stop a thread: a tool that hangs must not keep the process alive.
    threading.Thread(target=work, name=f"tool {call.name}", daemon=True).start()
    try:
        result = future.result(seconds)
    except Exception as error:
        if not future.done():
            return f"error: {call.name} took longer than {seconds:g} s."
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return _text(f"error: {reason}.")
    return result if isinstance(result, bytes) else _text(str(result))


def _text(result: str) -> str:
    return result.replace(PLACE, " ")[:LONGEST]
