"""Boxes and masks of a few images: annotated, and as the model finds them."""

import colorsys
import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmjax.data import rle
from mmjax.data.regions import Regions
from mmjax.data.sources.subset import Subset
from mmjax.evals.detection import Detection
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag, text
from mmjax.report.sections.retrieval import image_of
from mmjax.report.sections.section import Section

IMAGES = 6
BOXES = 10  # of an image: the best
SIDE = 320  # pixels of the longer side


@dataclasses.dataclass(frozen=True)
class Example:
    """An image with its regions and with the model's boxes, each uint8 [H, W, 3], and the names and
    scores of the boxes, the best first."""

    annotated: np.ndarray
    found: np.ndarray
    names: list[str]
    scores: list[float]


def drawn(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """The image, its longer side `SIDE` pixels, with boxes in a color for each class, and masks.

    Args:
      boxes: [n, 4], x0, y0, x1, y1 in 0..1, the last on top.
      masks: bool [H, W] of each box, of the image's size.
    """
    image = image.copy()
    colors = [_color(label) for label in labels]
    for mask, color in zip(masks, colors):
        image[mask] = (image[mask] + np.asarray(color)) // 2
    shown = Image.fromarray(image)
    scale = SIDE / max(shown.size)
    shown = shown.resize([max(1, round(side * scale)) for side in shown.size])
    canvas = ImageDraw.Draw(shown)
    last = np.asarray([shown.width - 1, shown.height - 1] * 2)
    for box, color in zip(np.asarray(boxes).clip(0, 1) * (last + 1), colors):
        corners = np.minimum(box, last).tolist()
        canvas.rectangle(corners, outline=color, width=3)
    return np.asarray(shown)


def _color(label: int) -> tuple[int, ...]:
    hue = int(label) * 0.618 % 1  # far from that of the class before
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.9, 0.85))


def _collect(evaluated: Evaluated) -> list[Example] | None:
    """Randomly drawn images; None of an evaluator that finds no boxes."""
    if not isinstance(evaluated.evaluator, Detection):
        return None
    some = Subset(evaluated.source, evaluated.drawn(len(evaluated.source), IMAGES))
    found = evaluated.evaluator.found(evaluated.variables, some)
    examples = []
    for i, (height, width) in enumerate(found.sizes):
        example = some[i]
        image, regions = image_of(example), example["regions"]
        # They are sorted by image and then by score, the best first.
        mine = np.flatnonzero(found.detections.image == i)[:BOXES]
        labels = found.detections.label[mine].tolist()
        boxes = found.detections.boxes[mine] / np.asarray([width, height] * 2)
        examples.append(
            Example(
                drawn(image, regions.boxes, regions.labels, _masks(regions, image.shape[:2])),
                drawn(image, boxes[::-1], labels[::-1]),
                [found.class_names[label] for label in labels],
                found.detections.score[mine].tolist(),
            )
        )
    return examples


def _masks(regions: Regions, size: tuple[int, int]) -> list[np.ndarray]:
    """The masks, if every region has one."""
    if any(segment is None for segment in regions.segments) or size != (
        regions.height,
        regions.width,
    ):
        return []
    return [rle.decode(regions.mask(i)) for i in range(len(regions))]


def _html(examples: Sequence[Example], seed: int) -> str:
    rows = "".join(
        f'<article><div class="pair">{image_tag(example.annotated, "annotated")}'
        f"{image_tag(example.found, 'found by the model')}</div>"
        f"<p>{_caption(example)}</p></article>"
        for example in examples
    )
    return (
        f'<p class="note">Left the annotated regions, right the {BOXES} boxes with the highest '
        "scores, whatever these are; a color stands for a class. Images drawn at random (seed "
        f'{seed}).</p><div class="pairs">{rows}</div>'
    )


def _caption(example: Example) -> str:
    best = zip(example.names[:4], example.scores)
    return text(", ".join(f"{name} {score:.2f}" for name, score in best))


SECTION = Section("Boxes", _collect, _html)
