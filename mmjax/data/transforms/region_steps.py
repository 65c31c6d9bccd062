"""Steps of regions: boxes and masks of the image as it is at the end of the chain."""

import re

import numpy as np
from PIL import Image

from mmjax.data import rle
from mmjax.data.regions import WHOLE, Regions, seen_boxes, seen_mask
from mmjax.data.text.locations import FORMS, write_places
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.captions import example_name

PLACES = re.compile("<box>|<point>")  # of regions in messages


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


def write_boxes(form="bins"):
    """Writes regions into `messages`: "<box>" as the box of one, "<point>" as its middle.

    The k-th of these is of the k-th region. Boxes are those of the image after its crops, padding
    and flips, so this comes after the steps of the image, and before `converse`.

    Args:
      form: see `data/text/locations.py`.

    Raises:
      ValueError: from the step, another number of regions than of places in the messages, or a
        region that a crop has left out.
    """
    if form not in FORMS:
        raise ValueError(f"the form of boxes is {form!r}: use one of {', '.join(FORMS)}")

    def f(example, rng):
        name, found = example_name(example), example.get("regions")
        if not isinstance(found, Regions) or "messages" not in example:
            raise ValueError(
                f"example {name} has no messages with regions: use a source such as "
                "'grounded_instructions', or remove the step write_boxes"
            )
        texts = [message["content"] for message in example["messages"]]
        if sum(len(PLACES.findall(text)) for text in texts) != len(found):
            raise ValueError(
                f"the messages of example {name} have another number of places than its "
                f'{len(found)} regions: write "<box>" or "<point>" once for each'
            )
        boxes = seen_boxes(found, example.get("frame", WHOLE), np.arange(len(found)))
        if not (boxes[:, 2:] > boxes[:, :2]).all():
            raise ValueError(
                f"a region that the messages of example {name} are about is not in its image any "
                "more: leave the crops out"
            )
        left = iter(boxes)

        def written(place):
            box = next(left)
            middle = (box[:2] + box[2:]) / 2
            return write_places(middle if place[0] == "<point>" else box, form)

        messages = [
            {**message, "content": PLACES.sub(written, text)}
            for message, text in zip(example["messages"], texts)
        ]
        return {**example, "messages": messages}

    return f
