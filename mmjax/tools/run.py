"""Running the tools that a model calls."""

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence

from mmjax.config import nearest
from mmjax.data.text.calls import Call
from mmjax.data.text.image_places import PLACE
from mmjax.data.transforms.decode import decode_image

SECONDS = 20.0  # that a tool may take
LONGEST = 500  # characters of a result

# (arguments, the conversation's images) -> a text, or an image as the bytes of a file.
Tool = Callable[[str, Sequence[bytes]], str | bytes]


def run(
    call: Call, tools: Mapping[str, Tool], images: Sequence[bytes] = (), seconds: float = SECONDS
) -> str | bytes:
    """The result of a call; whatever goes wrong is a text too, for the model to read.

    A text has at most `LONGEST` characters and no `PLACE`, as no image comes with it; an image can
    be decoded.
    """
    if call.name not in tools:
        known = ", ".join(tools) or "none"
        return _text(
            f"error: there is no tool '{call.name}' (there are: {known})."
            f"{nearest(call.name, tools)}"
        )
    future: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        try:
            result = tools[call.name](call.arguments, images)
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
        return _text(f"error: {' '.join(str(error).split()) or type(error).__name__}.")
    return result if isinstance(result, bytes) else _text(str(result))


def _text(result: str) -> str:
    return result.replace(PLACE, " ")[:LONGEST]
