"""All masks of an image, from a grid of points."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmjax.data import rle
from mmjax.masks import rules
from mmjax.masks.segmenter import Prompt, Segmenter
from mmjax.number import check_finite

MOST_POINTS, MOST_LAYERS = 1024, 4  # a point of every pixel that the model reads; 341 crops


@dataclasses.dataclass(frozen=True)
class Settings:
    """How masks are looked for, and which are kept.

    Attributes:
      points: along each side of the grid of points, in the image and in every crop.
      crop_layers: layers of crops that are segmented, too; overlap: see `rules.crop_boxes`.
      iou: masks with a predicted IoU up to this are dropped.
      stability, offset: so are those whose stability (see `rules.stability`) is up to this.
      overlap_iou: of two masks whose boxes have a higher IoU, only the better one is kept.
      at_once: points in one call of the model.

    Source: the defaults of facebookresearch/segment-anything, automatic_mask_generator.py.
    """

    points: int = 32
    crop_layers: int = 0
    overlap: float = 512 / 1500
    iou: float = 0.88
    stability: float = 0.95
    offset: float = 1.0
    overlap_iou: float = 0.7
    at_once: int = 64

    def check(self) -> None:
        """Raise ValueError for settings out of range."""
        check_finite(vars(self), "masks")
        grid = 1 <= self.points <= MOST_POINTS and 0 <= self.crop_layers <= MOST_LAYERS
        if not grid or self.at_once < 1 or not 0 <= self.overlap < 1:
            raise ValueError(
                f"The grid has {self.points} points a side, in {self.crop_layers} layers of crops "
                f"that overlap by {self.overlap:g}, {self.at_once} points at once: use 1 to "
                f"{MOST_POINTS}, 0 to {MOST_LAYERS}, from 0 to below 1, and at least 1."
            )
        if not (0 <= self.stability <= 1 and 0 <= self.overlap_iou <= 1):
            raise ValueError(
                f"The smallest stability is {self.stability:g} and the largest IoU of two boxes "
                f"{self.overlap_iou:g}: both are from 0 to 1."
            )


class Found(NamedTuple):
    """A mask: as RLE, its predicted IoU, its stability, its box (x0, y0, x1, y1) with the last
    column and row, and the point that it was found from, in pixels of the image."""

    mask: rle.Rle
    iou: float
    stability: float
    box: tuple[int, ...]
    point: tuple[float, float]


def automatic_masks(
    segmenter: Segmenter,
    image: np.ndarray,
    settings: Settings,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Found]:
    """The masks of an image [H, W, 3] uint8, the best first.

    Args:
      progress: called with the number of points that were done since the last call.

    Raises:
      ValueError: settings out of range.
    """
    settings.check()
    height, width = image.shape[:2]
    found: list[Found] = []
    for crop in rules.crop_boxes(height, width, settings.crop_layers, settings.overlap):
        found += _of_crop(segmenter, image, crop, settings, progress)
    if not found:
        return []
    boxes, scores = np.asarray([x.box for x in found]), np.asarray([x.iou for x in found])
    return [found[i] for i in rules.suppress(boxes, scores, settings.overlap_iou)]


def _of_crop(segmenter, image, crop, settings, progress) -> list[Found]:
    x0, y0, x1, y1 = crop
    height, width = image.shape[:2]
    seen = segmenter.see(image[y0:y1, x0:x1])
    points = rules.point_grid(settings.points) * [x1 - x0, y1 - y0]
    found = []
    for start in range(0, len(points), settings.at_once):
        part = points[start : start + settings.at_once]
        # As many prompts in every call, so that the model is compiled once.
        filled = part[np.arange(min(settings.at_once, len(points))) % len(part)]
        masks = segmenter.masks(seen, [Prompt([tuple(p)], [1]) for p in filled])
        logits, iou = masks.logits[: len(part), 1:], masks.iou[: len(part), 1:]
        at, which = np.nonzero(iou > settings.iou if settings.iou > 0 else np.ones_like(iou, bool))
        for one, k in zip(at, which):  # at full size one by one: they are large
            full = segmenter.enlarge(logits[one, k][None], seen)
            score = float(rules.stability(full, settings.offset)[0])
            if settings.stability > 0 and not score > settings.stability:
                continue
            mask = full > 0
            box = rules.boxes_of(mask) + [x0, y0, x0, y0]
            if rules.cut_off(box, crop, height, width)[0]:
                continue
            whole = np.zeros((height, width), bool)
            whole[y0:y1, x0:x1] = mask[0]
            point = tuple((part[one] + [x0, y0]).tolist())
            box = tuple(box[0].tolist())
            found.append(Found(rle.encode(whole), float(iou[one, k]), score, box, point))
        progress(len(part))
    return found
