"""The endpoint of the chat: an answer as a stream of JSON lines."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Form, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from mmjax.serve.chats import MOST_IMAGES, MOST_MESSAGES, Chats, Said

CHAT = "/api/chat"


class Message(BaseModel):
    """A message, and how many of the files that are sent are its images."""

    role: Literal["user", "assistant", "tool"]
    text: str
    images: Annotated[int, Field(ge=0, le=MOST_IMAGES)] = 0


MESSAGES = TypeAdapter(Annotated[list[Message], Field(max_length=MOST_MESSAGES)])


class Lines(StreamingResponse):
    """Events as lines of JSON; where the client leaves, the iterator is closed at once."""

    media_type = "application/x-ndjson"

    def __init__(self, events: AsyncIterator[dict[str, Any]]):
        self._events = events
        super().__init__(json.dumps(event) + "\n" async for event in events)

    async def stream_response(self, send) -> None:
        async with contextlib.aclosing(self._events), contextlib.aclosing(self.body_iterator):
            await super().stream_response(send)


def read(messages: str, files: list[bytes]) -> list[Said]:
    """The conversation of a request.

    Raises:
      ValueError: no JSON of messages, or another number of files than of images.
    """
    try:
        found = MESSAGES.validate_json(messages)
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(map(str, ("messages", *first["loc"])))
        raise ValueError(f"{place}: {first['msg']}.") from None
    images = sum(message.images for message in found)
    if images != len(files):
        raise ValueError(f"The messages have {images} images, and {len(files)} files came.")
    rest = iter(files)
    return [Said(m.role, m.text, list(itertools.islice(rest, m.images))) for m in found]


def add(app: FastAPI, chats: Chats) -> None:
    """Add it to an application."""

    @app.post(CHAT, response_class=Lines)
    async def chat(
        messages: Annotated[
            str, Form(description='JSON: [{"role": "user", "text": ..., "images": COUNT}, ...]')
        ],
        files: Annotated[list[UploadFile] | None, Form(description="the images, in order")] = None,
    ) -> Lines:
        """The answer to a conversation, as lines of JSON while it is made: see `Chats.answer`."""
        data = [await file.read() for file in files or []]
        return Lines(await chats.answer(read(messages, data)))
