"""Conversations with a LLaVA for many callers: one answer at a time, as events while it is made."""

import asyncio
import base64
import contextlib
import io
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmjax.chat import Chat, Result
from mmjax.data.text.calls import Call
from mmjax.data.text.chat import check_messages
from mmjax.data.text.image_places import PLACE
from mmjax.process.printable import printable
from mmjax.serve.batcher import Busy
from mmjax.serve.decoders import Lanes
from mmjax.text_stream import open_model
from mmjax.tools.run import Loaded
from mmjax.tools.table import OF_RECORDINGS, named

MOST_MESSAGES, MOST_CHARACTERS, MOST_IMAGES = 100, 20_000, 8
NEW_TOKENS = 256  # between two calls of tools; a quarter of the window if that is less
SIDE = 2048  # of an image, at most
WAITING = 4  # callers that may wait for the answer to another
SECONDS = 240.0  # for an answer, waiting included


class Said(NamedTuple):
    """A message: who said it ("user", "assistant" or "tool"), its text, and its images as files.

    A tool's message is either a text or an image.
    """

    role: str
    text: str
    images: Sequence[bytes] = ()


class Chats:
    """Serves many concurrent callers.

    Args:
      chat: the model; name: of it, for the page; tools: the names of those that it may call.
    """

    def __init__(self, chat: Chat, name: str, tools: Sequence[str], decoding: Lanes):
        self.name, self.tools = name, list(tools)
        self._chat, self._decoding = chat, decoding
        self._turn, self._inside = asyncio.Lock(), 0
        self._thread = ThreadPoolExecutor(1)

    def warm_up(self) -> None:
        """Compile what short questions need, with an image and without."""
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "PNG")
        for images in ([], [file.getvalue()]):
            said = Said("user", "a", images)
            pieces = self._chat.answer(messages_of([said]), images)
            for _ in itertools.islice(pieces, 3):  # the first token, and the others
                pass

    async def answer(self, said: Sequence[Said]) -> AsyncIterator[dict[str, Any]]:
        """The events of the answer to a conversation:

            {"waiting": n}                      n callers are before this one
            {"text": ...}                       the next piece of the text
            {"call": {"name", "arguments"}}     a call of a tool, which ends the text so far
            {"result": {"text" or "image"}}     what it gave, an image as base64 of a PNG
            {"said": [...]}                     last: the answer as messages, for the next question
            {"error": ...}                      or else last: why there is no more

        If the iterator is closed, the model stops at its next token.

        Raises:
          ValueError: a conversation that is too long or that cannot be answered.
          Busy: too many wait already.
        """
        check(said)
        if self._inside > WAITING:
            raise Busy
        given = [image for one in said for image in one.images]
        images = [await self._decoding.reduced(image, SIDE) for image in given]
        return self._events(messages_of(said), images)

    async def _events(self, messages: list, images: list) -> AsyncIterator[dict[str, Any]]:
        if self._inside > WAITING:  # those that came at once have passed the check above
            yield {"error": "Too many others are waiting for answers: try again in a minute."}
            return
        self._inside += 1
        end = asyncio.get_running_loop().time() + SECONDS
        try:
            if self._turn.locked():
                yield {"waiting": self._inside - 1}
            async with asyncio.timeout_at(end):
                await self._turn.acquire()
            try:
                async with contextlib.aclosing(self._generate(messages, images, end)) as events:
                    async for event in events:
                        yield event
            finally:
                self._turn.release()
        except TimeoutError:
            yield {"error": f"The answer took longer than {SECONDS:g} seconds, and was stopped."}
        except ValueError as error:
            yield {"error": str(error)}
        finally:
            self._inside -= 1

    async def _generate(self, messages, images, end: float) -> AsyncIterator[dict[str, Any]]:
        loop, before = asyncio.get_running_loop(), len(messages)
        events: asyncio.Queue[Any] = asyncio.Queue()
        left = threading.Event()

        def work() -> None:
            if left.is_set():
                return
            with contextlib.closing(self._chat.answer(messages, images)) as pieces:
                for piece in pieces:
                    if left.is_set():
                        return
                    if piece == "":  # half of a character
                        continue
                    loop.call_soon_threadsafe(events.put_nowait, piece)

        done = loop.run_in_executor(self._thread, work)
        done.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while True:
                async with asyncio.timeout_at(end):
                    piece = await events.get()
                if piece is None:
                    break
                yield event_of(piece)
            done.result()  # raises what was raised in the thread
            yield {"said": said_of(messages[before:], images)}
        finally:
            left.set()


def open_chats(path: str, tools: str, decoding: Lanes) -> Chats:
    """The conversations with a model.

    Args:
      path: of the model; tools: names, separated by commas.

    Raises:
      ValueError: see `open_model` and `Chat`; an unknown tool, one that reads recordings, or one
        that cannot be loaded.
    """
    found = named(tools)
    for name in OF_RECORDINGS:
        if name in found:
            raise ValueError(
                f"The tool '{name}' reads a recording, which nobody can send on the page: leave it "
                "out of --tools, or ask with python -m mmjax.generate --chat --audio=FILE."
            )
    loaded = open_model(path)
    for tool in found.values():
        if isinstance(tool, Loaded):
            tool.load()  # now: it may take longer than an answer
    new = max(1, min(NEW_TOKENS, loaded.model.window // 4))
    chat = Chat(loaded, path, tools=found, max_new_tokens=new)
    return Chats(chat, printable(Path(path).resolve().name), list(found), decoding)


def check(said: Sequence[Said]) -> None:
    """Raise ValueError for a conversation that is too long, or that has other parts than it may."""
    images = sum(len(one.images) for one in said)
    characters = sum(len(one.text) for one in said)
    for count, most, what in (
        (len(said), MOST_MESSAGES, "messages"),
        (images, MOST_IMAGES, "images"),
        (characters, MOST_CHARACTERS, "characters"),
    ):
        if count > most:
            raise ValueError(
                f"The conversation has {count:,} {what}, and at most {most:,} are read: start a "
                "new one."
            )
    try:
        check_messages(messages_of(said), images)
    except ValueError as error:
        raise ValueError(f"The conversation cannot be answered: {error}.") from None
    if said[-1].role != "user":
        raise ValueError("The last message is not yours: ask something.")


def messages_of(said: Sequence[Said]) -> list[dict[str, str]]:
    """The messages as a model reads them: a user's images are before the text."""
    found = []
    for one in said:
        text, places = one.text.replace(PLACE, " "), [PLACE] * len(one.images)
        content = PLACE if one.role == "tool" and places else "\n".join([*places, text])
        found.append({"role": one.role, "content": content if text.strip() or places else ""})
    return found


def said_of(messages: Sequence[dict[str, str]], images: Sequence[bytes]) -> list[dict[str, Any]]:
    """Messages of an answer, the last images of a conversation among them, as they are sent."""
    count = sum(message["content"] == PLACE for message in messages)
    last = iter(images[len(images) - count :])
    return [
        {"role": m["role"], "text": "", "images": [as_text(next(last))]}
        if m["content"] == PLACE
        else {"role": m["role"], "text": m["content"], "images": []}
        for m in messages
    ]


def event_of(piece: str | Call | Result) -> dict[str, Any]:
    """An event as it is sent."""
    if isinstance(piece, Call):
        return {"call": piece._asdict()}
    if isinstance(piece, Result):
        kind = "image" if isinstance(piece.content, bytes) else "text"
        content = as_text(piece.content) if kind == "image" else piece.content
        return {"result": {kind: content}}
    return {"text": piece}


def as_text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")
