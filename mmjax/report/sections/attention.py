"""Attention of the image tower on a few images."""

import dataclasses

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.evals.attention_rollout import attention_maps
from mmjax.report import figures
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag
from mmjax.report.sections.section import Section

IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Attention:
    """Images after the transform, and the fraction of attention on each patch."""

    images: np.ndarray  # uint8 [n, H, W, 3]
    maps: np.ndarray  # [n, rows, columns], each sums to 1


def _collect(evaluated: Evaluated) -> Attention | None:
    """Attention of randomly drawn images; None for a model without attention weights."""
    runner, spec = evaluated.runner, evaluated.evaluator.transform
    drawn = evaluated.drawn(len(evaluated.source), IMAGES)
    batch = next(iter(runner.batches(Subset(evaluated.source, drawn), spec, runner.batch_size)))
    if "image" not in batch or batch["image"].ndim != 4:  # of several images of an example
        return None
    weights = runner.attention(evaluated.variables, {"image": batch["image"]})
    if weights is None:
        return None
    count = len(drawn)
    images = runner.gather({"image": batch["image"]})["image"][:count]
    return Attention(images, attention_maps(weights[:, :count], *images.shape[1:3]))


def _html(attention: Attention, seed: int) -> str:
    pairs = "".join(
        f'<div class="pair">{image_tag(image, "image")}'
        f"{image_tag(figures.attention_overlay(image, weights), 'its attention')}</div>"
        for image, weights in zip(attention.images, attention.maps)
    )
    return (
        '<p class="note">Attention rollout of the image tower over all layers and heads (Abnar '
        f"&amp; Zuidema 2020); bright is high. Images drawn at random (seed {seed}).</p>"
        f'<div class="pairs">{pairs}</div>'
    )


SECTION = Section("Attention", _collect, _html, once=True)
