"""Conversations with a LLaVA: its answers, piece by piece, with the tools that it calls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmjax import conversation
from mmjax.data.text.calls import Call, read_call, until_call
from mmjax.data.text.image_places import PLACE
from mmjax.decode.generate import check_prompts
from mmjax.decode.tool_calls import WellFormedCalls
from mmjax.pretrained import Pretrained
from mmjax.text_stream import make_text_stream, settings_for
from mmjax.tools.run import Tool, run

MOST_CALLS = 4  # of tools in one answer
NO_ROOM = "error: the result is too long."


class Result(NamedTuple):
    """What a tool gave: a text, or an image as the bytes of a file."""

    call: Call
    content: str | bytes


class Chat:
    """Answers of a LLaVA.

    Args:
      name: of the model, for messages.
      tools: those that the model may call, at most `MOST_CALLS` times in an answer, which ends
        where not even an error fits into the window.
      audio: paths of recordings, for the tools.
      max_new_tokens: between two calls; None: as many as fit, at most 64; decode: further fields
        of `Settings`.

    Raises:
      ValueError: a model that is no LLaVA, one without a chat template, or wrong settings.
    """

    def __init__(
        self,
        loaded: Pretrained,
        name: str,
        *,
        tools: Mapping[str, Tool] | None = None,
        audio: Sequence[str] = (),
        seed: int = 0,
        max_new_tokens: int | None = None,
        **decode: Any,
    ):
        kind = loaded.config["name"]
        if kind != "llava":
            raise ValueError(f"'{name}' holds a '{kind}': --chat takes a 'llava'.")
        if loaded.need_tokenizer().chat_template is None:
            raise ValueError(f"'{name}' has no chat template: ask it one --prompt, without --chat.")
        if tools:
            decode["processors"] = (WellFormedCalls.of(loaded.tokenizer, tools),)
        self.loaded, self._tools, self._audio = loaded, tools or {}, audio
        self._seed, self._new, self._decode = seed, max_new_tokens, decode
        self._settings = self._stream = None

    def answer(
        self, messages: list[dict[str, str]], images: list[str | bytes]
    ) -> Iterator[str | Call | Result]:
        """The answer to the last of the messages, which is the user's: pieces of text, each call
        when it is complete, and its result.

        What is said is added to `messages`, and images that tools give to `images`; if the iterator
        is closed early, only what was complete.

        Args:
          images: of all messages, each a path or the bytes of a file.

        Raises:
          ValueError: see `conversation.make_batch`; or a prompt that leaves no room for an answer.
        """
        for calls in range(MOST_CALLS + 1):
            yield from self._turn(messages, images)
            call = read_call(messages[-1]["content"]) if self._tools else None
            if call is None or calls == MOST_CALLS:
                return
            yield call
            seen = [conversation.read_image(image) for image in images]
            content = run(call, self._tools, seen, self._audio)
            added = self._add(content, messages, images)
            if not added:
                content = NO_ROOM
                added = self._add(content, messages, images)
            yield Result(call, content)
            if not added:
                return

    def check(self, images: Sequence[str | bytes]) -> None:
        """Check that a short question about the images has room for an answer.

        Raises:
          ValueError: an image that cannot be read, wrong settings, or no room.
        """
        messages = conversation.first_turn("a", len(images))
        batch = conversation.make_batch(self.loaded, messages, images)
        settings = settings_for(self.loaded, batch, self._new, **self._decode)
        check_prompts(self.loaded.model, settings, batch)

    def _turn(self, messages: list[dict[str, str]], images: list[str | bytes]) -> Iterator[str]:
        batch = conversation.make_batch(self.loaded, messages, images)
        settings = settings_for(self.loaded, batch, self._new, **self._decode)
        if settings != self._settings:  # else what it has compiled serves again
            self._settings, self._stream = settings, make_text_stream(self.loaded, settings)
        text = ""
        for piece in self._stream(batch, self._seed):
            text += piece
            yield piece
        text = until_call(text) if self._tools else text
        text = text.replace(PLACE, " ").strip()  # no place of an image in the next prompt
        messages.append({"role": "assistant", "content": text or "..."})

    def _add(self, result: str | bytes, messages: list, images: list) -> bool:
        """Add a tool's message; False, and nothing is added, if it leaves no room for a token."""
        image = isinstance(result, bytes)
        content = PLACE if image else result.strip() or "..."
        said, seen = [*messages, {"role": "tool", "content": content}], [*images, *[result] * image]
        batch = conversation.make_batch(self.loaded, said, seen)
        if int(batch["text_mask"].sum()) + (self._new or 1) > self.loaded.model.window:
            return False
        messages[:], images[:] = said, seen
        return True
