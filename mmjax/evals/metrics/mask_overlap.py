"""Overlap of masks: IoU, boundary IoU, and IoU by the number of clicks."""

import numpy as np
from jaxtyping import Bool, Float


def mask_iou(
    masks: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union of N pairs of masks; 1 where both are empty."""
    common = (masks & truth).sum((1, 2))
    union = (masks | truth).sum((1, 2))
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)


def boundary_iou(
    masks: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"], ratio: float = 0.02
) -> Float[np.ndarray, " n"]:
    """IoU of the parts of N pairs of masks within a distance of their outlines.

    Args:
      ratio: that distance, as a fraction of the image's diagonal; at least a pixel.

    Source: Cheng et al. 2021 (arXiv 2103.16562), eq. 2; bowenc0221/boundary-iou-api,
    boundary_utils.py, `mask_to_boundary`.
    """
    distance = max(1, round(ratio * float(np.hypot(*masks.shape[1:]))))
    return mask_iou(_boundary(masks, distance), _boundary(truth, distance))


def _boundary(masks: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of each mask with one outside of it at most `distance` away in each direction;
    all around the image is outside."""
    inner = masks
    for axis in (1, 2):
        inner = _all_near(inner, distance, axis)
    return masks & ~inner


def _all_near(masks: np.ndarray, distance: int, axis: int) -> np.ndarray:
    """Whether all from `distance` before a pixel to `distance` after it are set."""
    widths = [(0, 0)] * masks.ndim
    widths[axis] = (distance + 1, distance)
    count = np.cumsum(np.pad(masks, widths), axis, dtype=np.int32)
    side, window = masks.shape[axis], 2 * distance + 1
    first, last = (np.arange(start, start + side) for start in (0, window))
    return count.take(last, axis) - count.take(first, axis) == window


def iou_by_clicks(
    iou: Float[np.ndarray, "n k"], goals: tuple[float, ...] = (0.85, 0.9)
) -> dict[str, float]:
    """`miou_K` after each number of clicks, and `noc_GOAL`, the mean number of clicks until the IoU
    is `GOAL` percent or more; objects that never reach it count as all K.

    Args:
      iou: of N objects after 1 ... K clicks.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), section 7.1; Sofiiuk et al. 2021
    (arXiv 2102.06583) for the number of clicks.
    """
    clicks = iou.shape[1]
    found = {f"miou_{k + 1}": float(iou[:, k].mean()) for k in range(clicks)}
    for goal in goals:
        reached = iou >= goal
        first = np.where(reached.any(1), 1 + reached.argmax(1), clicks)
        found[f"noc_{round(100 * goal)}"] = float(first.mean())
    return found
