"""Grounding of phrases: is what a model points at what the phrase means?"""

import numpy as np
from jaxtyping import Float

from mmjax.evals.metrics.coco_ap import box_overlaps


def pair_overlaps(
    boxes: Float[np.ndarray, "n k 4"], truth: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n k"]:
    """IoU of K boxes of each of N phrases with the true one."""
    n, k = boxes.shape[:2]
    flat = boxes.reshape(-1, 4)
    return box_overlaps(flat, np.repeat(truth, k, 0), np.zeros(n * k, bool)).reshape(n, k)


def grounding_accuracy(
    boxes: Float[np.ndarray, "n 4"], truth: Float[np.ndarray, "n 4"], threshold: float = 0.5
) -> float:
    """Fraction of N phrases whose box has an IoU of at least `threshold` with the true one.

    Boxes are x0, y0, x1, y1, both in the same unit. Source: Yu et al. 2016 (arXiv 1608.00272).
    """
    return float((pair_overlaps(boxes[:, None], truth)[:, 0] >= threshold).mean())


def recall_at(
    boxes: Float[np.ndarray, "n k 4"], truth: Float[np.ndarray, "n 4"], threshold: float = 0.5
) -> Float[np.ndarray, " k"]:
    """Fraction of N phrases with the true box among the first 1 ... K boxes, the best first.

    Source: Plummer et al. 2015 (arXiv 1505.04870), section 4.
    """
    right = pair_overlaps(boxes, truth) >= threshold
    return np.logical_or.accumulate(right, axis=1).mean(0)


def pointing_game(
    maps: Float[np.ndarray, "n h w"], truth: Float[np.ndarray, "n 4"], tolerance: float = 0.0
) -> float:
    """Fraction of N phrases whose map has its maximum (the first of several) in the true box.

    Args:
      maps: how much each part of the image belongs to the phrase, of any resolution.
      truth: x0, y0, x1, y1 in 0..1 of the image.
      tolerance: how far outside the box the point may be, in the same unit.

    Source: Zhang et al. 2016 (arXiv 1608.00507), section 4.2.
    """
    height, width = maps.shape[1:]
    row, column = np.divmod(maps.reshape(len(maps), -1).argmax(1), width)
    points = np.stack([(column + 0.5) / width, (row + 0.5) / height], 1)
    return point_accuracy(points, truth, tolerance)


def point_accuracy(
    points: Float[np.ndarray, "n 2"], truth: Float[np.ndarray, "n 4"], tolerance: float = 0.0
) -> float:
    """Fraction of N points x, y that are in the true box, or at most `tolerance` outside of it."""
    inside = (points >= truth[:, :2] - tolerance) & (points <= truth[:, 2:] + tolerance)
    return float(inside.all(1).mean())
