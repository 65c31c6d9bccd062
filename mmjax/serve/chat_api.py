"""The endpoint of the chat: an answer as a stream of JSON lines."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from mmjax.serve.chats import Chats, Said

CHAT = "/api/chat"


class Message(BaseModel):
    """A message; images are files as base64."""

    role: Literal["user", "assistant", "tool"]
    text: str
    images: list[str] = []


class Conversation(BaseModel):
    """A conversation, whose last message is a question."""

    messages: list[Message]


class Lines(StreamingResponse):
    """Events as lines of JSON; where the client leaves, the iterator is closed at once."""

    media_type = "application/x-ndjson"

    def __init__(self, events: AsyncIterator[dict[str, Any]]):
        self._events = events
        super().__init__(json.dumps(event) + "\n" async for event in events)

    async def stream_response(self, send) -> None:
        async with contextlib.aclosing(self._events), contextlib.aclosing(self.body_iterator):
            await super().stream_response(send)


def add(app: FastAPI, chats: Chats) -> None:
    """Add it to an application."""

    @app.post(CHAT, response_class=Lines)
    async def chat(conversation: Conversation) -> Lines:
        """The answer to a conversation, as lines of JSON while it is made: see `Chats.answer`."""
        said = [Said(m.role, m.text, m.images) for m in conversation.messages]
        return Lines(await chats.answer(said))
