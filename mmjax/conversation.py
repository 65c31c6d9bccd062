"""Prompts of a LLaVA: messages and images as the batch that it answers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmjax.data import image_files
from mmjax.data.text.chat import chat_template, check_messages
from mmjax.data.text.image_places import PLACE, ImagePlaces
from mmjax.data.transforms import parse
from mmjax.data.transforms.converse import encode
from mmjax.data.transforms.image_steps import CANNOT_DECODE
from mmjax.decode.prompts import pad_prompts
from mmjax.pretrained import Pretrained


def first_turn(prompt: str, images: int) -> list[dict[str, str]]:
    """The message of a prompt, which begins with its images unless it has `PLACE` for them."""
    if PLACE not in prompt:
        prompt = "\n".join([*[PLACE] * images, prompt])
    return [{"role": "user", "content": prompt}]


def make_batch(
    loaded: Pretrained, messages: Sequence[Mapping[str, str]], images: Sequence[str | bytes]
) -> dict[str, np.ndarray]:
    """The inputs of the model for the answer to the last of the messages.

    Without a chat template the prompt is the text of the messages alone; that of a PaliGemma is as
    in transformers, processing_paligemma.py, build_string_from_input.

    Args:
      images: of all messages, each a path or the bytes of a file.

    Raises:
      ValueError: an image that cannot be read, another number of `PLACE` than of images, or an
        empty message.
    """
    words, model = loaded.need_tokenizer(), loaded.model
    prepare = parse.parse(loaded.transform)
    examples = [_prepared(prepare, image) for image in images]
    grids = [x["image_grid"][0] if "image_grid" in x else (0, 0) for x in examples]
    try:
        check_messages(messages, len(images))
    except ValueError as error:
        raise ValueError(f"The prompt cannot be answered: {error}.") from None
    token = words.token(model.image_token)
    places = ImagePlaces(token, model.image_length, **model.places)
    if words.chat_template is not None:
        row = encode(messages, grids, chat_template(words), places, words, prompt=True).ids
    else:
        begin = [] if words.bos_id is None else [words.bos_id]
        text = "\n".join(message["content"] for message in messages)
        if model.prefix:
            images_text = places.expand(PLACE * len(images), grids)
            text = text.replace(PLACE, "").strip() + "\n"
            row = [*words.pieces(images_text)[0], *begin, *words.pieces(text)[0]]
        else:
            row = [*begin, *words.pieces(places.expand(text, grids))[0]]
    batch = pad_prompts([row], words.pad_id)
    if not images:
        return batch
    arrays = [x["image"].reshape(-1, *x["image"].shape[-3:]) for x in examples]
    return batch | {"image": np.concatenate(arrays)[None]}


def read_image(image: str | bytes) -> bytes:
    """The bytes of an image's file, of its path or of themselves.

    Raises:
      ValueError: it cannot be read.
    """
    return image if isinstance(image, bytes) else image_files.read(image)


@contextlib.contextmanager
def naming(image: str | bytes) -> Iterator[None]:
    """Within it an error of decoding names the image: by its path, or as that of a tool."""
    try:
        yield
    except (OSError, ValueError) as error:
        name = "of a tool" if isinstance(image, bytes) else f"'{image}'"
        why = str(error).removeprefix(f"{CANNOT_DECODE}: ")
        raise ValueError(f"Cannot read the image {name}: {why}.") from None


def _prepared(prepare, image: str | bytes) -> dict[str, np.ndarray]:
    data = read_image(image)
    with naming(image):
        return prepare({"image": data}, np.random.default_rng(0))
