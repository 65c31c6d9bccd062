"""Average precision and recall of detections, as COCO defines them.

Equal to pycocotools 2.0.11, with one difference: there a truth whose id is 0 never counts as
matched, so that a perfect detector scores below 1; here ids do not matter. As there, the bounds of
the area ranges are inclusive on both sides (1024 pixels are small and medium), and the overlap with
a crowd region is the intersection over the detection's area.

Source: cocodataset/cocoapi, pycocotools/cocoeval.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data import rle
from mmjax.evals.metrics.box_matching import Pairs, match_greedily

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"": (0, 1e10), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e10)}
LIMITS = (1, 10, 100)  # detections of a class in an image


class Truths(NamedTuple):
    """G annotated objects of all images; `boxes` are x0, y0, x1, y1 in pixels."""

    image: Int[np.ndarray, " g"]
    label: Int[np.ndarray, " g"]
    boxes: Float[np.ndarray, "g 4"]
    area: Float[np.ndarray, " g"]  # pixels, as annotated
    crowd: Bool[np.ndarray, " g"]
    masks: Sequence[rle.Rle] | None = None


class Detections(NamedTuple):
    """D detections of all images; with masks, their boxes need not be tight."""

    image: Int[np.ndarray, " d"]
    label: Int[np.ndarray, " d"]
    score: Float[np.ndarray, " d"]
    boxes: Float[np.ndarray, "d 4"]
    masks: Sequence[rle.Rle] | None = None


class Curves(NamedTuple):
    """What COCO's numbers are means of; NaN for a class without objects in an area range.

    `precision[k, a, t, r]` of K classes, at the recalls `RECALLS`; `recall[m, k, a, t]` by the
    number of detections `limits[m]`.
    """

    precision: Float[np.ndarray, "k a t r"]
    recall: Float[np.ndarray, "m k a t"]


def coco_ap(truths: Truths, found: Detections, classes: int) -> dict[str, float]:
    """COCO's twelve numbers: `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar1`,
    `ar10`, `ar100`, `ar_small`, `ar_medium`, `ar_large`.

    Of masks if both have them, else of boxes; the area of a detection is that of its mask (of its
    box in pycocotools, where a result has both). Means over the classes that have objects (of that
    size); NaN if none has, where pycocotools gives -1.

    Raises:
      ValueError: only one of the two has masks.
    """
    curves = precision_curves(truths, found, classes)
    precision, recall = curves.precision, curves.recall
    ap = [_mean(precision[:, a]) for a in range(len(AREAS))]
    ar = [_mean(recall[-1, :, a]) for a in range(len(AREAS))]
    return {
        "ap": ap[0],
        "ap50": _mean(precision[:, 0, 0]),
        "ap75": _mean(precision[:, 0, 5]),
        **{f"ap{name}": value for name, value in list(zip(AREAS, ap))[1:]},
        **{f"ar{limit}": _mean(recall[m, :, 0]) for m, limit in enumerate(LIMITS)},
        **{f"ar{name}": value for name, value in list(zip(AREAS, ar))[1:]},
    }


def lvis_ap(
    truths: Truths,
    found: Detections,
    classes: int,
    negative: Int[np.ndarray, "n 2"],
    not_exhaustive: Int[np.ndarray, "m 2"],
    frequency: Sequence[str],
    limit: int = 300,
) -> dict[str, float]:
    """LVIS's numbers: `ap`, `ap50`, `ap75`, by area, `ap_rare`, `ap_common`, `ap_frequent`, `ar`
    (of `limit` detections of an image).

    Only detections of classes that were looked for in an image count: those that it has, or is
    known not to have. Where not every object of a class is annotated, detections of no annotated
    one are ignored.

    Args:
      negative, not_exhaustive: pairs (image, label).
      frequency: of each class "r", "c" or "f".

    Source: Gupta et al. 2019 (arXiv 1908.03195); lvis-dataset/lvis-api, lvis/eval.py.
    """
    kept = _best_of_image(found, limit)
    pairs = np.stack([truths.image, truths.label], 1)
    looked_for = _keys(np.concatenate([pairs, negative]), classes)
    keys = _keys(np.stack([found.image, found.label], 1), classes)
    kept = kept[np.isin(keys[kept], looked_for)]
    partly = np.isin(keys[kept], _keys(not_exhaustive, classes))
    curves = precision_curves(truths, _take(found, kept), classes, (limit,), partly)
    precision = curves.precision
    groups = {"rare": "r", "common": "c", "frequent": "f"}
    of = np.asarray(list(frequency))
    return {
        "ap": _mean(precision[:, 0]),
        "ap50": _mean(precision[:, 0, 0]),
        "ap75": _mean(precision[:, 0, 5]),
        **{f"ap{name}": _mean(precision[:, a]) for a, name in enumerate(AREAS) if name},
        **{f"ap_{name}": _mean(precision[of == sign, 0]) for name, sign in groups.items()},
        "ar": _mean(curves.recall[0, :, 0]),
    }


def class_ap(curves: Curves) -> Float[np.ndarray, " k"]:
    """The AP of each class (mean over thresholds and recalls); NaN without objects."""
    return curves.precision[:, 0].mean((1, 2))


def precision_curves(
    truths: Truths,
    found: Detections,
    classes: int,
    limits: Sequence[int] = LIMITS,
    ignored_if_unmatched: Bool[np.ndarray, " d"] | None = None,
) -> Curves:
    """Precision at each recall, and recall, of every class, area range and threshold.

    Args:
      limits: detections of a class in an image, ascending; precision is that of the last.
      ignored_if_unmatched: detections that count only if they match.

    Raises:
      ValueError: only one of the two has masks, or labels out of range.
    """
    if (truths.masks is None) != (found.masks is None):
        raise ValueError("either both the truths and the detections have masks, or none has")
    for labels in (truths.label, found.label):
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"there are {classes} classes, and a label is not one of them")
    truths = _take(truths, np.lexsort((truths.image, truths.label)))
    order = np.lexsort((-found.score, found.image, found.label))
    rank = _rank_in_group(found.image[order], found.label[order])
    order, rank = order[rank < limits[-1]], rank[rank < limits[-1]]
    unknown = np.zeros(len(order), bool)
    if ignored_if_unmatched is not None:
        unknown = ignored_if_unmatched[order]
    found = _take(found, order)

    areas = np.asarray(list(AREAS.values()), np.float64)
    ignored = truths.crowd[:, None] | _outside(truths.area, areas)
    pairs = _overlaps(truths, found)
    matched, of_ignored = match_greedily(
        pairs, len(found.score), ignored, truths.crowd, np.minimum(THRESHOLDS, 1 - 1e-10)
    )
    if found.masks is None:
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        area = sides[:, 0] * sides[:, 1]
    else:
        area = np.asarray([rle.area(mask) for mask in found.masks], np.float64)
    outside = (_outside(area, areas) | unknown[:, None])[:, :, None]
    counted = ~(of_ignored | (~matched & outside))

    shape = (classes, len(areas), len(THRESHOLDS))
    precision = np.full((*shape, len(RECALLS)), np.nan)
    recall = np.full((len(limits), *shape), np.nan)
    starts = np.searchsorted(found.label, np.arange(classes + 1))
    objects = np.zeros((classes, len(areas)))
    np.add.at(objects, truths.label, ~ignored)
    for k in np.flatnonzero(objects.any(1)):
        mine = np.arange(starts[k], starts[k + 1])
        mine = mine[np.argsort(-found.score[mine], kind="stable")]
        right, counts = matched[mine] & counted[mine], counted[mine]
        there = np.flatnonzero(objects[k])
        for m, limit in enumerate(limits):
            hits = right[rank[mine] < limit].sum(0)
            recall[m, k, there] = hits[there] / objects[k, there, None]
        precision[k, there] = _precision(right[:, there], counts[:, there], objects[k, there])
    return Curves(precision, recall)


def _outside(area: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return (area[:, None] < ranges[:, 0]) | (area[:, None] > ranges[:, 1])


def _take(several, rows):
    """The rows of all arrays and of the masks."""
    masks = None if several.masks is None else [several.masks[i] for i in rows]
    arrays = [x[rows] for x in several[:-1]]
    return type(several)(*arrays, masks)


def _keys(pairs: np.ndarray, classes: int) -> np.ndarray:
    """One number for each pair (image, label)."""
    return pairs[:, 0].astype(np.int64) * classes + pairs[:, 1]


def _rank_in_group(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The place of each row among those of its image and label, which are consecutive."""
    new = np.append(True, (image[1:] != image[:-1]) | (label[1:] != label[:-1]))[: len(image)]
    place = np.arange(len(image))
    return place - np.maximum.accumulate(np.where(new, place, 0))


def _best_of_image(found: Detections, limit: int) -> np.ndarray:
    """The `limit` detections of each image with the highest scores, in their order."""
    order = np.lexsort((-found.score, found.image))
    rank = _rank_in_group(found.image[order], np.zeros(len(order)))
    return np.sort(order[rank < limit])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _precision(right: np.ndarray, counts: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[a, t, r] of detections [d, a, t] in the order of their scores."""
    hits = np.moveaxis(np.cumsum(right, 0, dtype=np.float64), 0, -1)
    seen = np.moveaxis(np.cumsum(counts, 0, dtype=np.float64), 0, -1)
    precision = hits / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    # From a recall that is not reached on, 0.
    precision = np.concatenate([precision, np.zeros((*precision.shape[:-1], 1))], -1)
    recall = hits / objects[:, None, None]
    at = np.asarray([[np.searchsorted(row, RECALLS) for row in rows] for rows in recall])
    return np.take_along_axis(precision, at, -1)


def _overlaps(truths: Truths, found: Detections) -> Pairs:
    """Of every detection and truth of one class in one image; both sorted by class and image."""
    images = 1 + max(found.image.max(initial=0), truths.image.max(initial=0))
    own, other = (x.label.astype(np.int64) * images + x.image for x in (found, truths))
    first, last = (np.searchsorted(other, own, side) for side in ("left", "right"))
    number = last - first
    detection = np.repeat(np.arange(len(number)), number)
    truth = np.arange(len(detection)) - np.repeat(np.cumsum(number) - number - first, number)
    boxes = found.boxes[detection], truths.boxes[truth]
    if found.masks is None:
        overlap = box_overlaps(*boxes, truths.crowd[truth])
    else:
        overlap = _mask_overlaps(truths, found, detection, truth)
    return Pairs(detection, truth, overlap)


def _mask_overlaps(
    truths: Truths, found: Detections, detection: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Of pairs of masks; only those whose boxes touch are looked at."""
    own, other = (
        _tight_boxes(masks, rows)[rows]
        for masks, rows in ((found.masks, detection), (truths.masks, truth))
    )
    low = np.maximum(own[:, :2], other[:, :2])
    high = np.minimum(own[:, :2] + own[:, 2:], other[:, :2] + other[:, 2:])
    near = np.flatnonzero((high > low).all(1))
    near = near[np.argsort(truth[near], kind="stable")]
    overlap = np.zeros(len(detection))
    bounds = np.flatnonzero(np.diff(truth[near], prepend=-1, append=-1))
    for start, stop in zip(bounds[:-1], bounds[1:]):
        t = truth[near[start]]
        masks = [found.masks[d] for d in detection[near[start:stop]]]
        overlap[near[start:stop]] = rle.iou(masks, [truths.masks[t]], [truths.crowd[t]])[:, 0]
    return overlap


def _tight_boxes(masks: Sequence[rle.Rle], rows: np.ndarray) -> np.ndarray:
    """[M, 4]: x, y, width, height of the masks in `rows`, zeros for the others."""
    boxes = np.zeros((len(masks), 4))
    for row in np.unique(rows):
        boxes[row] = rle.box(masks[row])
    return boxes


def box_overlaps(
    boxes: Float[np.ndarray, "p 4"], truths: Float[np.ndarray, "p 4"], crowd: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """Intersection over union of pairs of boxes (x0, y0, x1, y1), over the first one's area where
    the second is a crowd."""
    low = np.maximum(boxes[:, :2], truths[:, :2])
    sides = (np.minimum(boxes[:, 2:], truths[:, 2:]) - low).clip(0)
    common = sides[:, 0] * sides[:, 1]
    own, other = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (boxes, truths))
    union = np.where(crowd, own, own + other - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)
