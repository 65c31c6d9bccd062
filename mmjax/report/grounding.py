"""Grounding: which part of an image each word of its caption is matched with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.evals.grad_cam import grad_cam, middle
from mmjax.evals.image_text import Pairs
from mmjax.run.evaluation import Runner
from mmjax.system import Variables

IMAGES = 6
WORDS = 8  # of each caption


@dataclasses.dataclass(frozen=True)
class Grounding:
    """An image after the transform, and for each token of its caption a map of the image."""

    image: np.ndarray  # uint8 [H, W, 3]
    caption: str
    probability: float  # with which the model says that they match
    words: list[str]
    maps: np.ndarray  # [words, rows, columns], not negative


def grounding_of(
    runner: Runner, variables: Variables, pairs: Pairs, source: Any, spec: str, seed: int
) -> list[Grounding]:
    """Grad-CAM of a few randomly drawn pairs; [] for a model that matches no pairs.

    Args:
      source: whose examples are the images of `pairs`.
    """
    count, size = min(IMAGES, len(source)), runner.batch_size
    drawn = np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False))
    captions = [pairs.texts[np.flatnonzero(pairs.text_image_index == i)[0]] for i in drawn]
    batch = next(iter(runner.batches(Subset(source, drawn), spec, size)))
    padded = captions + captions[-1:] * (size - count)
    text, mask = runner.tokenizer.encode(padded[runner.rows], runner.text_length)
    given = {"image": batch["image"], "text": np.asarray(text), "text_mask": np.asarray(mask)}
    found = runner.match_gradients(variables, given)
    if found is None:
        return []
    given = runner.gather(given)
    images, layer = given["image"], middle(len(found["weights"]))
    maps = grad_cam(found["weights"][layer], found["gradients"][layer], *images.shape[1:3])
    return [
        Grounding(
            images[i],
            captions[i],
            float(found["probability"][i]),
            *_words(runner.tokenizer, given, maps, i),
        )
        for i in range(count)
    ]


def _words(
    tokenizer: Any, batch: Mapping[str, np.ndarray], maps: np.ndarray, row: int
) -> tuple[list[str], np.ndarray]:
    """The first tokens of a text but the special ones, and their maps."""
    ids = batch["text"][row]
    special = {tokenizer.bos_id, *tokenizer.end_ids} - {None}
    shown = np.flatnonzero(batch["text_mask"][row] & ~np.isin(ids, list(special)))[:WORDS]
    return [tokenizer.decode_raw([ids[i]]).strip() for i in shown], maps[row, shown]
