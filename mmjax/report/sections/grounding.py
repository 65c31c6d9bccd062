"""Grounding: which part of an image each word of its caption is matched with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import modality_of
from mmjax.data.sources.subset import Subset
from mmjax.evals.grad_cam import grad_cam, middle
from mmjax.report import figures
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag, text
from mmjax.report.sections.section import Section

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


def _collect(evaluated: Evaluated) -> list[Grounding] | None:
    """Grad-CAM of a few randomly drawn pairs; None for a model that matches no pairs."""
    pairs, runner = evaluated.pairs, evaluated.runner
    if pairs is None:
        return None
    source, size = evaluated.pair_source, runner.batch_size
    drawn = evaluated.drawn(len(source), IMAGES)
    count = len(drawn)
    captions = [pairs.texts[np.flatnonzero(pairs.text_image_index == i)[0]] for i in drawn]
    batch = next(iter(runner.batches(Subset(source, drawn), evaluated.evaluator.transform, size)))
    padded = captions + captions[-1:] * (size - count)
    ids, mask = runner.tokenizer.encode(padded[runner.rows], runner.text_length)
    given = {k: x for k, x in batch.items() if modality_of(k) == "image"}
    given |= {"text": np.asarray(ids), "text_mask": np.asarray(mask)}
    found = runner.match_gradients(evaluated.variables, given)
    if found is None:
        return None
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


def _html(found: Sequence[Grounding], seed: int) -> str:
    rows = "".join(
        f"<h3>{text(pair.caption)} <small>matches: {pair.probability:.0%}</small></h3>"
        f'<div class="examples"><article>{image_tag(pair.image, pair.caption)}</article>'
        + "".join(
            f"<article>{image_tag(figures.attention_overlay(pair.image, weights), word)}"
            f"<p>{text(word)}</p></article>"
            for word, weights in zip(pair.words, pair.maps)
        )
        + "</div>"
        for pair in found
    )
    return (
        '<p class="note">Grad-CAM of the cross-attention in the middle of the fusion encoder, for '
        "each token of the caption: attention times the gradient of the logit that image and "
        "caption match, where it is positive (Li et al. 2021); bright is high, each map on its own "
        f"scale. Images drawn at random (seed {seed}).</p>{rows}"
    )


SECTION = Section("Grounding", _collect, _html, once=True)
