"""Regions of an image: boxes, masks and labels, and how crops, flips and padding change them.

A source gives them in the coordinates of the image as it is stored. The steps of a chain only note
which part of that image they have kept, the `frame`; boxes and masks follow from it once, at the
end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data import rle

Frame = tuple[float, float, float, float]

WHOLE: Frame = (0.0, 0.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Regions:
    """The n regions of an image of `height` x `width` pixels, as stored.

    Attributes:
      boxes: float64 `[n, 4]`, x0, y0, x1, y1 in fractions of the image's sides.
      labels: int32 `[n]`, indices into the class names of the source; -1: none.
      segments: of each region an `rle.Rle`, a COCO `segmentation`, or None.
      crowd: bool `[n]`, regions of many objects that are not told apart.
      areas: float64 `[n]`, pixels of each as annotated.
    """

    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    segments: Sequence[Any]
    crowd: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, which: Sequence[int]) -> "Regions":
        """Some of the regions."""
        arrays = {
            name: getattr(self, name)[list(which)] for name in ("boxes", "labels", "crowd", "areas")
        }
        segments = [self.segments[i] for i in which]
        return dataclasses.replace(self, segments=segments, **arrays)

    def mask(self, index: int) -> rle.Rle:
        """The mask of one region.

        Raises:
          ValueError: it has none, or one of another size than the image's.
        """
        segment = self.segments[index]
        if segment is None:
            raise ValueError(f"region {index} has a box and no mask: use the boxes alone")
        if isinstance(segment, rle.Rle):
            return segment
        return rle.from_segmentation(segment, self.height, self.width)


def plain(regions: Regions) -> dict[str, Any]:
    """The fields of `Regions` for a file: arrays, numbers, and masks as COCO's compressed RLE."""
    fields = {field.name: getattr(regions, field.name) for field in dataclasses.fields(regions)}
    size = [regions.height, regions.width]
    fields["segments"] = [
        None if s is None else {"size": size, "counts": rle.to_string(regions.mask(i))}
        for i, s in enumerate(regions.segments)
    ]
    return fields


def of_masks(masks: Sequence[rle.Rle], labels: Sequence[int], height: int, width: int) -> Regions:
    """Regions of masks alone, with the boxes around them."""
    boxes = np.asarray([rle.box(mask) for mask in masks], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Regions(
        height,
        width,
        boxes / [width, height, width, height],
        np.asarray(labels, np.int32),
        list(masks),
        np.zeros(len(masks), bool),
        np.asarray([rle.area(mask) for mask in masks], np.float64),
    )


def window(size: tuple[int, int], top: int, left: int, height: int, width: int) -> Frame:
    """A part of an image of `size` = (height, width), in fractions of its sides."""
    return left / size[1], top / size[0], (left + width) / size[1], (top + height) / size[0]


def within(frame: Frame, inner: Frame) -> Frame:
    """The part `inner` of the part `frame` of an image, as a part of the image.

    Parts may reach over the sides (padding), and are mirrored where x0 > x1.
    """
    x0, y0, x1, y1 = frame
    w, h = x1 - x0, y1 - y0
    return x0 + inner[0] * w, y0 + inner[1] * h, x0 + inner[2] * w, y0 + inner[3] * h


def into_frame(boxes: np.ndarray, frame: Frame) -> np.ndarray:
    """Boxes `[..., 4]` of an image as boxes of its part `frame`; not clipped."""
    x0, y0, x1, y1 = frame
    found = (boxes - np.asarray([x0, y0] * 2)) / np.asarray([x1 - x0, y1 - y0] * 2)
    return _ordered(found)


def out_of_frame(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The inverse of `into_frame`; `frame` may be `[..., 4]`, one for each list of boxes."""
    start = np.concatenate([frame[..., :2]] * 2, -1)
    sides = np.concatenate([frame[..., 2:] - frame[..., :2]] * 2, -1)
    return _ordered(start + boxes * sides)


def _ordered(boxes: np.ndarray) -> np.ndarray:
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(low, high), np.maximum(low, high)], -1)


def seen_boxes(regions: Regions, frame: Frame, chosen: np.ndarray) -> np.ndarray:
    """`[k, 4]`: boxes of the chosen regions in a part of the image, clipped to it; 0 where nothing
    is left.

    A box that the part cuts is that of the region's visible mask, where it has a mask.
    """
    boxes = into_frame(regions.boxes[chosen], frame)
    clipped = boxes.clip(0, 1)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(-1)
    cut = (clipped != boxes).any(-1) & ~empty
    # A box may reach over the image itself by a rounding error, which cuts nothing.
    cut &= np.abs(clipped - boxes).max(-1, initial=0) > 1e-6
    for i in np.flatnonzero(cut):
        if regions.segments[chosen[i]] is not None:
            clipped[i] = _visible_box(rle.decode(regions.mask(chosen[i])), frame)
    clipped[empty] = 0
    return clipped


def _visible_box(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """The box around the pixels of a mask whose middle is in `frame`, in its coordinates."""
    (top, bottom), (left, right) = (
        _inside(side, *sorted(ends))
        for side, ends in zip(mask.shape, ((frame[1], frame[3]), (frame[0], frame[2])))
    )
    part = mask[top:bottom, left:right]
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(rows):
        return np.zeros(4)
    box = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
    return into_frame(np.asarray(box) / np.asarray(mask.shape[::-1] * 2), frame).clip(0, 1)


def _inside(side: int, start: float, end: float) -> tuple[int, int]:
    """The pixels of a side whose middle is from `start` to `end`."""
    first, last = np.ceil(np.asarray([start, end]) * side - 0.5).astype(int).clip(0, side)
    return int(first), int(last)


def seen_mask(mask: np.ndarray, frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """The mask in a part of its image, resized to `size` = (height, width): the nearest pixel to
    each one's middle, and False outside the image."""
    (top, rows), (left, columns) = (
        _nearest(side, wanted, start, end)
        for side, wanted, start, end in zip(
            mask.shape, size, (frame[1], frame[0]), (frame[3], frame[2])
        )
    )
    seen = np.zeros(size, bool)
    part = np.ascontiguousarray(mask).take(rows, 0).take(columns, 1)
    seen[top : top + len(rows), left : left + len(columns)] = part
    return seen


def _nearest(side: int, wanted: int, start: float, end: float) -> tuple[int, np.ndarray]:
    """The pixels of a side that the middles of `wanted` ones from `start` to `end` are in, and the
    first of these; without those outside, which are at the ends."""
    places = start + (np.arange(wanted) + 0.5) / wanted * (end - start)
    found = np.floor(places * side).astype(int)
    inside = np.flatnonzero((found >= 0) & (found < side))
    return int(inside[0]) if len(inside) else 0, found[inside]
