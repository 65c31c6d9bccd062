"""The rules of automatic mask generation: crops, grids of points, filters and suppression.

Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix B; numbers equal those of transformers
5.23, image_processing_sam.py: a box includes its last pixel, masks of all crops are suppressed at
once by predicted IoU (in the paper within each crop, and then the crops with more zoom first), and
neither small components nor masks of the whole image are removed.
"""

import itertools
import math

import numpy as np

EDGE = 20  # pixels from a crop's side within which a box is cut off by it


def crop_boxes(height: int, width: int, layers: int, overlap: float) -> list[tuple[int, ...]]:
    """Crops (x0, y0, x1, y1): the whole image, and in layer i of `layers` 2^i x 2^i parts.

    Args:
      overlap: of neighbors in the first layer, as a fraction of the shorter side; it is halved in
        each further one.
    """
    found = [(0, 0, width, height)]
    for layer in range(1, layers + 1):
        n = 2**layer
        shared = int(overlap * min(height, width) * (2 / n))
        sides = [math.ceil((shared * (n - 1) + side) / n) for side in (width, height)]
        starts = [[(side - shared) * i for i in range(n)] for side in sides]
        found += [
            (x, y, min(x + sides[0], width), min(y + sides[1], height))
            for x, y in itertools.product(*starts)
        ]
    return found


def point_grid(side: int) -> np.ndarray:
    """`[side², 2]`: the middles of a square grid's cells, (x, y) in 0..1, row by row."""
    at = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)


def stability(logits: np.ndarray, offset: float) -> np.ndarray:
    """`[N]`: IoU of the masks `[N, H, W]` of logits above `offset` and above -`offset`; 0 where
    both are empty."""
    inner = (logits > offset).sum((1, 2), dtype=np.float64)
    outer = (logits > -offset).sum((1, 2), dtype=np.float64)
    return np.divide(inner, outer, out=np.zeros_like(inner), where=outer > 0)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """`[N, 4]`: first and last column and row of each mask `[N, H, W]`, as (x0, y0, x1, y1); zeros
    for an empty one."""
    found = np.zeros((len(masks), 4), np.int64)
    for axis, place in ((1, 0), (2, 1)):
        any_ = masks.any(axis)
        found[:, place] = any_.argmax(1)
        found[:, place + 2] = any_.shape[1] - 1 - any_[:, ::-1].argmax(1)
    return found * masks.any((1, 2))[:, None]


def cut_off(boxes: np.ndarray, crop: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """`[N]` bool: boxes `[N, 4]` of the image that end at a side of the crop which is not one of
    the image."""
    at_crop = np.abs(boxes - np.asarray(crop)) <= EDGE
    at_image = np.abs(boxes - np.asarray([0, 0, width, height])) <= EDGE
    return (at_crop & ~at_image).any(1)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes `[N, 4]` that overlap no kept box of a higher
    score `[N]` with an IoU above the threshold, from the highest score on."""
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.clip(high - low, 0, None).prod(1)
        left = left[common <= threshold * (area[best] + area[left] - common)]
    return np.asarray(kept, np.int64)
