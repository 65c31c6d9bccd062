"""Detections from the outputs of an OWL-ViT for one image, in NumPy.

Boxes are (x0, y0, x1, y1), fractions of the sides of the model's input until `to_pixels`.

Source: transformers 5.23, image_processing_owlvit.py and image_processing_owlv2.py.
"""

from typing import NamedTuple

import numpy as np

NEAR_BEST = 0.8  # tokens whose box overlaps as well as this fraction of the best are candidates
FADED = 0.1  # of the best score: the relative score 0


class Detections(NamedTuple):
    """Boxes [N, 4] with their scores [N] in 0..1 and the index of their query [N]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def kept(self, which: np.ndarray) -> "Detections":
        """Those of a mask or of indices."""
        return Detections(*(x[which] for x in self))


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(IoU, generalized IoU) [N, M] of boxes [N, 4] and [M, 4]; 0 and -1 where it is undefined."""
    a, b = np.asarray(a, np.float32)[:, None], np.asarray(b, np.float32)[None]

    def area(low, high):
        return np.maximum(high - low, 0).prod(-1)

    inner = area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - inner
    hull = area(np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:]))
    iou = np.where(union > 0, inner / np.where(union > 0, union, 1), 0)
    return iou, np.where(hull > 0, iou - (hull - union) / np.where(hull > 0, hull, 1), -1)


def best_queries(logits: np.ndarray, boxes: np.ndarray, threshold: float) -> Detections:
    """The best query of each token, of those that score above the threshold.

    Args:
      logits: [P, Q]; boxes: [P, 4].
    """
    scores = sigmoid(logits.max(-1))
    every = Detections(boxes, scores, logits.argmax(-1))
    return every.kept(scores > threshold)


def suppress(found: Detections, overlap: float) -> Detections:
    """Non-maximum suppression over all queries: without boxes that overlap a better one by more."""
    scores = found.scores.copy()
    if overlap < 1:
        for i in np.argsort(-scores, kind="stable"):
            if scores[i] > 0:
                iou = overlaps(found.boxes[i : i + 1], found.boxes)[0][0]
                iou[i] = -1
                scores[iou > overlap] = 0
    return found.kept(scores > 0)


def relative_scores(scores: np.ndarray) -> np.ndarray:
    """Scores of one image scaled so that the best is 1 and a tenth of it 0.

    With image queries the scores themselves say little: their scale is that of texts.
    """
    best = scores.max(initial=0) + 1e-6
    return ((scores - best * FADED) / (best * (1 - FADED))).clip(0, 1)


def query_token(
    class_embed: np.ndarray, boxes: np.ndarray, objectness: np.ndarray | None = None
) -> int:
    """Which token of a query image stands for the object in it.

    With objectness (OWLv2) that of the highest; else, of the tokens whose boxes fit the whole image
    best, the one that is least like the mean of all, which is background.

    Args:
      class_embed: [P, E], not normalized; boxes: [P, 4]; objectness: [P].
    """
    if objectness is not None:
        return int(objectness.argmax())
    iou, giou = overlaps(np.asarray([[0, 0, 1, 1]]), boxes)
    fit = giou[0] if (iou[0] == 0).all() else iou[0]
    candidates = np.flatnonzero(fit >= fit.max() * NEAR_BEST)
    if not len(candidates):  # a best fit below 0
        candidates = np.asarray([fit.argmax()])
    return int(candidates[(class_embed[candidates] @ class_embed.mean(0)).argmin()])


def to_pixels(boxes: np.ndarray, size: tuple[int, int], padded: bool) -> np.ndarray:
    """Boxes in pixels of the original image of `size` = (height, width).

    Args:
      padded: the model's input was padded to a square, else stretched.
    """
    height, width = size
    return boxes * np.asarray([max(size)] * 4 if padded else [width, height] * 2, np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0, -x.astype(np.float64))).astype(np.float32)
