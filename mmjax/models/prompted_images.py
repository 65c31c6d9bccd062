"""Checks that the images of a row are as many as its text has places for."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.experimental.multihost_utils import process_allgather

from mmjax.batch import Batch
from mmjax.system import Variables


def check_images(model: Any, batch: Batch) -> None:
    """Raise ValueError where the image tokens of a text are not those of the example's images.

    An example whose image is missing (`image_present` false) may have any number of them.
    """
    each = model.image_length
    is_place = (np.asarray(batch["text"]) == model.image_token) & np.asarray(batch["text_mask"])
    places, mask = is_place.sum(1), _valid_images(batch, len(is_place))
    present = np.asarray(batch.get("image_present", np.ones(len(places), bool)))
    images = mask.sum(1)
    for row in np.flatnonzero((places != images * each) & present):
        raise ValueError(
            f"The text of row {row} of the batch has {places[row]} image tokens, and its "
            f"{images[row]} images need {each} each: write one <image> for each image, and expand "
            f"it to {each} tokens."
        )
    for row in np.flatnonzero((mask[:, 1:] & ~mask[:, :-1]).any(1)):
        raise ValueError(
            f"image_mask of row {row} of the batch is {mask[row].tolist()}: the k-th <image> "
            "stands for the k-th image, so put the valid images first."
        )


def _valid_images(batch: Batch, rows: int) -> np.ndarray:
    """[B, M] bool."""
    if "image" not in batch:
        return np.zeros((rows, 0), bool)
    shape = np.shape(batch["image"])
    mask = batch.get("image_mask")
    if mask is None:
        return np.ones((rows, shape[1] if len(shape) == 5 else 1), bool)
    return np.asarray(mask)


def with_checked_prompts(model: Any, hooks: dict[str, Callable]) -> dict[str, Callable]:
    """`generate` and `score` of `hooks`, which check the images of the prompts, and never generate
    an image token."""

    def checked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(variables: Variables, batch: Batch, *args: Any) -> Any:
            keys = ("text", "text_mask", "image_mask", "image_present")
            host = process_allgather({k: batch[k] for k in keys if k in batch}, tiled=True)
            image = {"image": batch["image"]} if "image" in batch else {}
            check_images(model, {**image, **host})
            return function(variables, batch, *args)

        return call

    def generate(tokenizer, settings):
        return checked(
            hooks["generate"](tokenizer, {"forbidden_ids": (model.image_token,), **settings})
        )

    def score(tokenizer, texts):
        return checked(hooks["score"](tokenizer, texts))

    return {"generate": generate, "score": score}
