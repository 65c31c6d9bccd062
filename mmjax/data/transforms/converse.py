"""Conversations about images as rows of tokens, of which the responses are learned."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.text.chat import TEMPLATES, ChatTemplate, chat_template, check_messages
from mmjax.data.text.image_places import PLACE, ImagePlaces
from mmjax.data.transforms import captions as captions_lib
from mmjax.data.transforms import chain, image_ops
from mmjax.data.transforms.captions import example_name


class Conversation(NamedTuple):
    """Token ids [L], and bool [L]: true on the tokens of responses."""

    ids: np.ndarray
    learned: np.ndarray


def ask(prompts=("Describe the image.",), before=True, image=True, *, class_names=None):
    """Sets `messages` of an example with captions: a question about its image, and the answer.

    With `answers` the first caption is the question and a random one of them the answer; otherwise
    a random one of `prompts` is the question, and a random caption the answer. `PLACE` is added for
    each image, where the example has any.

    Args:
      before: the images come before the question, else after it (one at random: "either").
      image: False: a question without its images, which are left out.
    """
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if before not in (True, False, "either"):
        raise ValueError(f"before is {before!r}: use True, False or 'either'")

    def f(example, rng):
        if not image:
            example = {k: v for k, v in example.items() if k != "image"}
        own = captions_lib.captions_of(example, class_names)
        answers = example.get("answers")
        if answers:
            answers = [answers] if isinstance(answers, bytes | str) else answers
            question, answer = own[0], captions_lib.as_text(answers[rng.integers(len(answers))])
        else:
            question = prompts[rng.integers(len(prompts))]
            answer = own[rng.integers(len(own))]
        first = bool(rng.integers(2)) if before == "either" else before
        places = "\n".join([PLACE] * len(_images(example)))
        turn = [places, question] if first else [question, places]
        content = "\n".join(part for part in turn if part)
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": answer},
        ]
        return {**example, "messages": messages}

    return f


def converse(
    length,
    image_token=None,
    per_image=0,
    images=1,
    size=None,
    template="",
    places=None,
    prompt=False,
    *,
    tokenizer,
):
    """Sets `text` int32, `text_mask` and `text_loss_mask` bool, all `[length]`, from `messages`.

    The messages are written by the tokenizer's chat template, each `PLACE` is expanded to the
    tokens of an image, and the loss mask is true on the tokens of responses. `image` becomes
    `[images, H, W, 3]`, and `image_mask` bool `[images]` is false on those that are missing. An
    example of the source `packed` has several conversations, which share the row: then `text_pack`
    int32 `[length]` is the number of each token's conversation.

    Args:
      image_token: id of the token of an image; per_image: how many an image has (of a Llava,
        `image_length`).
      images: most images of a row; size: sides of the images of a row without any.
      template: a name of `chat.TEMPLATES` in place of the tokenizer's template.
      places: further fields of `ImagePlaces`.
      prompt: leave out what follows the last question, as in evaluation: the last response with its
        calls of tools and their results. A conversation that ends otherwise is kept whole.

    Raises:
      ValueError: from the step, a conversation that `check_messages` refuses, one that is too long
        or has too many images.
    """
    written = chat_template(tokenizer, template)
    token = None if image_token is None else tokenizer.token(image_token)
    layout = ImagePlaces(token or PLACE, per_image, **(places or {}))

    def f(example, rng):
        given = _images(example)
        grids = list(example.get("image_grid", [(0, 0)] * len(given)))
        packs = "conversations" in example
        members = example["conversations"] if packs else [{**example, "images": len(grids)}]
        made, used = [], 0
        for one in members:
            own = grids[used : used + one["images"]]
            used += one["images"]
            made.append(_named(one, example, own, written, layout, tokenizer, prompt))
        row = _row(made, length, tokenizer.pad_id, example)
        if packs:
            row["text_pack"] = _numbers(made, length)
        left_out = ("image", "image_grid", "messages", "conversations")
        kept = {k: v for k, v in example.items() if k not in left_out}
        return {**kept, **row, **_padded(given, images, size, example)}

    return f


def named_template(chains: Iterable[str]) -> str:
    """The chat template that the first `converse` of chains of transforms names; "" for none."""
    for spec in chains:
        for name, args, kwargs, _ in chain.read(spec):
            if name == "converse":
                given = inspect.signature(converse).bind_partial(*args, **kwargs).arguments
                return TEMPLATES.get(given.get("template"), "")
    return ""


def _images(example: Mapping[str, Any]) -> tuple:
    image = example.get("image")
    return image if isinstance(image, tuple) else () if image is None else (image,)


def _named(one, example, grids, template, layout, tokenizer, prompt) -> Conversation:
    """`encode` of a conversation, with the record's name in errors."""
    try:
        messages = one.get("messages") or ()
        check_messages(messages, len(grids))
        if prompt and messages[-1]["role"] == "assistant":
            asked = max(i for i, message in enumerate(messages) if message["role"] == "user")
            messages = messages[: asked + 1]
        return encode(messages, grids, template, layout, tokenizer, prompt)
    except ValueError as error:
        name = example_name(one if "key" in one else example)
        raise ValueError(f"the conversation of example {name}: {error}") from None


def encode(
    messages: Sequence[Mapping[str, str]],
    grids: Sequence[Sequence[int]],
    template: ChatTemplate,
    places: ImagePlaces,
    tokenizer: Any,
    prompt: bool = False,
) -> Conversation:
    """The tokens of messages, written by a template, with expanded images.

    The text begins with the begin token where there is one, and a response at its end ends with an
    end token.

    Args:
      grids: rows and columns of tiles of each image; prompt: end with what begins a response.

    Raises:
      ValueError: messages that the template refuses, or that have the model's token of an image.
    """
    if prompt:
        text, spans = template.render(messages, generate=True), ()
    else:
        text, spans = template.rendered(messages)
    if places.token != PLACE and places.token in text:
        raise ValueError(
            f"its text has {places.token}, which the model reads as an image: write {PLACE} for "
            "each image, and leave that out"
        )
    whole = places.expand(text, grids)
    # Where the expanded text up to a character ends.
    spans = [tuple(len(places.expand(text[:end], grids)) for end in span) for span in spans]
    ids, offsets = tokenizer.pieces(whole)
    learned = [any(a <= first and last <= b for a, b in spans) for first, last in offsets]
    if tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids, learned = [tokenizer.bos_id, *ids], [False, *learned]
    if learned and learned[-1] and not any(i in tokenizer.end_ids for i in ids[-2:]):
        ids, learned = [*ids, tokenizer.eos_id], [*learned, True]
    learned[:1] = [False]  # nothing predicts it; in a packed row, another conversation's end would
    return Conversation(np.asarray(ids, np.int32), np.asarray(learned, bool))


def _row(made: Sequence[Conversation], length: int, pad: int, example) -> dict[str, np.ndarray]:
    """Conversations one after the other in a row of `length` tokens."""
    ids = np.concatenate([one.ids for one in made])
    if len(ids) > length:
        raise ValueError(
            f"the conversation of example {example_name(example)} has {len(ids)} tokens with those "
            f"of its images, and a row {length}: raise the length of converse(), and that of the "
            "model, or leave the example out"
        )
    room = (0, length - len(ids))
    return {
        "text": np.pad(ids, room, constant_values=pad),
        "text_mask": np.arange(length) < len(ids),
        "text_loss_mask": np.pad(np.concatenate([one.learned for one in made]), room),
    }


def _numbers(made: Sequence[Conversation], length: int) -> np.ndarray:
    """The conversation of each token of a row, [length] int32; of padding, one more."""
    numbers = np.repeat(np.arange(len(made), dtype=np.int32), [len(one.ids) for one in made])
    return np.pad(numbers, (0, length - len(numbers)), constant_values=len(made))


def _padded(given: tuple, images: int, size, example) -> dict[str, np.ndarray]:
    """`image` and `image_mask` of so many images."""
    if len(given) > images:
        raise ValueError(
            f"example {example_name(example)} has {len(given)} images, and a row {images}: raise "
            "the images of converse(), and the model's max_images"
        )
    if not given and size is None:
        return {}
    arrays = [image_ops.to_array(image) for image in given]
    shape = arrays[0].shape if arrays else (*np.broadcast_to(size, 2), 3)
    if any(x.shape != shape for x in arrays):
        raise ValueError(
            f"the images of example {example_name(example)} are of the sizes "
            f"{[x.shape[:2] for x in arrays]}: resize them to one"
        )
    stacked = np.zeros((images, *shape), np.uint8)
    for i, array in enumerate(arrays):
        stacked[i] = array
    return {"image": stacked, "image_mask": np.arange(images) < len(arrays)}
