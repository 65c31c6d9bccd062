"""Steps of regions: boxes and masks of the image as it is at the end of the chain."""

import numpy as np
from PIL import Image

from mmjax.data import rle
from mmjax.data.regions import WHOLE, Regions, seen_boxes, seen_mask
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.captions import example_name


def regions(slots, masks=False):
    """Sets arrays of `slots` regions N, in step with the image's crops, padding and flips.

    `boxes` float32 `[N, 4]` (x0, y0, x1, y1 in 0..1 of the image), `boxes_mask` bool `[N]`,
    `box_label` int32 `[N]` (index into the class names; -1: none), with masks also `masks` bool
    `[N, H, W]`; and `frame` float32 `[4]`, the part of the stored image that the image shows
    (x0 > x1 if mirrored), which takes boxes back to it.

    Boxes are clipped to the image, and left out where nothing is left; a box that is cut is the one
    around what is visible of its mask. Crowd regions are left out. Of more than N, N are drawn at
    random. Comes last of the steps of the image.

    Args:
      masks: also set `masks`; a region without one is refused.
    """
    if not isinstance(slots, int) or slots < 1:
        raise ValueError(f"slots is {slots!r}: the number of regions is a positive whole number")

    def f(example, rng):
        found = example.get("regions")
        if not isinstance(found, Regions):
            raise ValueError(
                f"example {example_name(example)} has no regions: use a source with boxes, such as "
                "'coco', or remove the step regions"
            )
        image = example.get("image")
        if not isinstance(image, Image.Image | np.ndarray) or getattr(image, "ndim", 3) > 3:
            raise ValueError("regions comes after decode, and the example has one image")
        size = image_ops.size_of(image)
        frame = example.get("frame", WHOLE)
        chosen = np.flatnonzero(~found.crowd)
        boxes = seen_boxes(found, frame, chosen)
        left = (boxes[:, 2:] > boxes[:, :2]).all(-1)
        chosen, boxes = chosen[left], boxes[left]
        if len(chosen) > slots:
            kept = np.sort(rng.choice(len(chosen), slots, replace=False))
            chosen, boxes = chosen[kept], boxes[kept]
        n = len(chosen)
        arrays = {
            "boxes": np.zeros((slots, 4), np.float32),
            "boxes_mask": np.arange(slots) < n,
            "box_label": np.full(slots, -1, np.int32),
            "frame": np.asarray(frame, np.float32),
        }
        arrays["boxes"][:n] = boxes
        arrays["box_label"][:n] = found.labels[chosen]
        if masks:
            arrays["masks"] = np.zeros((slots, *size), bool)
            for slot, i in enumerate(chosen):
                arrays["masks"][slot] = seen_mask(rle.decode(found.mask(i)), frame, size)
            # A thin region may have no pixel at this size.
            arrays["boxes_mask"] &= arrays["masks"].any((1, 2))
        return {**example, **arrays}

    return f
