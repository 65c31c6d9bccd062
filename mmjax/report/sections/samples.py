"""Sampled images: how they change over training, and each beside its nearest training image."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmjax.evals.image_generation import ImageGeneration
from mmjax.evals.metrics.manifold import nearest_rows
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import card_grid, image_tag, text
from mmjax.report.sections.section import Section

COUNT, GRIDS, SIDE = 12, 6, 1024  # samples; grids over training; their longest side in pixels


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample with its text, and images uint8 [H, W, 3] by what they are."""

    text: str
    images: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples of the last evaluation, and grids of the first of them by step."""

    examples: list[Sample]
    grids: Mapping[int, np.ndarray]


def _collect(evaluated: Evaluated) -> Samples | None:
    evaluator = evaluated.evaluator
    if not isinstance(evaluator, ImageGeneration):
        return None
    drawn = evaluated.drawn(len(evaluated.source), COUNT)
    made, real, texts = evaluator.sampled(evaluated.variables, drawn)
    columns = {"sample": made, "held-out image": real}
    known = evaluator.training
    if known is not None:
        places, _ = nearest_rows(evaluator.features(made), known.features)
        columns["nearest training image"] = known.images[places]
        found = evaluator.retrieved(texts)
        if found is not None:
            columns["retrieved for the text"] = known.images[found]
    rows = zip(texts, *columns.values())
    examples = [Sample(given, dict(zip(columns, images))) for given, *images in rows]
    grids = evaluator.kept()
    steps = sorted(grids)
    chosen = {steps[i] for i in np.linspace(0, len(steps) - 1, GRIDS).round().astype(int)}
    return Samples(examples, {step: grids[step] for step in sorted(chosen)} if steps else {})


def _html(found: Samples, seed: int) -> str:
    tiles = "".join(_tile(sample) for sample in found.examples)
    cards = card_grid(
        (f"Step {step:,}", image_tag(image, f"samples at step {step}", "grid", SIDE), "")
        for step, image in found.grids.items()
    )
    over = '<p class="note">The same samples over training.</p>' + cards if cards else ""
    nearest = any("nearest training image" in sample.images for sample in found.examples)
    near = (
        " The nearest training image is so by the metrics' features: a sample that equals it is a "
        "copy."
    )
    return (
        f'<p class="note">Samples for {len(found.examples)} held-out examples drawn at random '
        f"(seed {seed}).{near if nearest else ''}</p>"
        f'<div class="rows">{tiles}</div>{over}'
    )


def _tile(sample: Sample) -> str:
    images = "".join(
        f"<div>{image_tag(image, f'{what}: {sample.text}')}<small>{what}</small></div>"
        for what, image in sample.images.items()
    )
    asked = f"<q>{text(sample.text)}</q>" if sample.text else ""
    return f'<article><div class="asked">{asked}</div><div class="answers">{images}</div></article>'


SECTION = Section("Samples", _collect, _html)
