"""Conversations as text: chat templates, and the checks of messages.

A message is {"role": "system" | "user" | "assistant" | "tool", "content": str}; the content has
`PLACE` for each image. A tool's message is the result of a call; see data/text/calls.py.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.config import nearest
from mmjax.data.text.image_places import PLACE

ROLES = ("system", "user", "assistant", "tool")
# Templates by name, for tokenizers without one. "plain" is of LLaVA's first stage: an image and its
# caption, without the question; "vicuna" is that of LLaVA-1.5; "chatml" that of SmolLM2 and Qwen.
TEMPLATES = {
    "plain": (
        "{% for m in messages %}{% if m['role'] == 'user' %}"
        "{% if '<image>' in m['content'] %}<image>{% endif %}"
        "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "vicuna": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + ' ' }}"
        "{% elif m['role'] == 'user' %}USER: {{ m['content'] + ' ' }}"
        "{% elif m['role'] == 'tool' %}TOOL: {{ m['content'] + ' ' }}"
        "{% else %}ASSISTANT: {{ m['content'] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}


class Rendered(NamedTuple):
    """A conversation as text, and [start, end) of its responses, in characters."""

    text: str
    responses: Sequence[tuple[int, int]]


class ChatTemplate:
    """A Jinja template of a tokenizer's files, rendered in a sandbox, with bounded work.

    Args:
      source: the template; special: "bos_token", "eos_token", ... -> the token.

    Raises:
      ValueError: a template with a mistake.
    """

    def __init__(self, source: str, special: Mapping[str, str]):
        from mmjax.data.text import jinja  # imported late: few runs have conversations

        self._special, self._template = special, jinja.compiled(source)

    def render(self, messages: Sequence[Mapping[str, str]], generate: bool = False) -> str:
        """The text of messages; `generate`: with what begins a response.

        Raises:
          ValueError: messages that the template refuses.
        """
        if self._takes_parts:
            messages = [{**m, "content": parts(m["content"])} for m in messages]
        return self._render(messages, generate)

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> Rendered:
        """The text of messages, and where its responses are.

        Raises:
          ValueError: messages that the template refuses, or a template that writes messages
            otherwise once there are later ones.
        """
        whole, spans = self.render(messages), []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self.render(messages[:i], generate=True)
                after = self.render(messages[: i + 1])
                if not (whole.startswith(after) and after.startswith(before)):
                    raise ValueError(
                        "The chat template writes messages otherwise once there are later ones, so "
                        "its responses cannot be told apart: use another template."
                    )
                spans.append((len(before), len(after)))
        return Rendered(whole, spans)

    @functools.cached_property
    def _takes_parts(self) -> bool:
        """Whether contents are lists of {"type": "text" or "image", ...}, and not text."""
        content = [{"type": "text", "text": "word"}]
        try:
            text = self._render([{"role": "user", "content": content}], False)
        except ValueError:
            return False
        return "word" in text and not any(x in text for x in ("'type'", '"type"'))

    def _render(self, messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        given = {"messages": list(messages), "add_generation_prompt": generate, "tools": None}
        return self._template(**given, **self._special)


def chat_template(tokenizer: Any, name: str = "") -> ChatTemplate:
    """The template of that name, or by default the tokenizer's own.

    Raises:
      ValueError: an unknown name, or a tokenizer without a template.
    """
    source = tokenizer.chat_template
    if name:
        if name not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise ValueError(
                f"There is no chat template '{name}': use one of {known}.{nearest(name, TEMPLATES)}"
            )
        source = TEMPLATES[name]
    if source is None:
        raise ValueError(
            "The tokenizer has no chat template: give the template of converse(), one of "
            f"{', '.join(TEMPLATES)}."
        )
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special = {role: "" if i is None else tokenizer.token(i) for role, i in ids.items()}
    return ChatTemplate(source, special)


def parts(content: str) -> list[dict[str, str]]:
    """A content as the list of its texts and images."""
    found: list[dict[str, str]] = []
    for i, text in enumerate(content.split(PLACE)):
        found += [{"type": "image"}] * (i > 0)
        found += [{"type": "text", "text": text}] if text else []
    return found


def check_messages(messages: Sequence[Mapping[str, Any]], images: int) -> None:
    """Raise ValueError for a conversation that cannot be learned from.

    Args:
      images: how many images come with it.
    """
    if not messages:
        raise ValueError("it has no messages")
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"turn {i} is by {role!r}: use one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"turn {i}, by the {role}, is empty")
        if role not in ("user", "tool") and PLACE in content:
            raise ValueError(
                f"turn {i}, by the {role}, has {PLACE}: images belong to the user's turns"
            )
    first = next((m["role"] for m in messages if m["role"] != "system"), None)
    if first != "user":
        raise ValueError(f"it starts with {first or 'the system'}: the user has the first turn")
    places = sum(m["content"].count(PLACE) for m in messages)
    if places != images:
        raise ValueError(f"its text has {places} {PLACE} and it comes with {images} images")
