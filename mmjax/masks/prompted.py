"""The masks of a prompt, at the size of the image."""

import numpy as np

from mmjax.data import rle
from mmjax.masks import rules
from mmjax.masks.automatic import Found, Settings
from mmjax.masks.segmenter import Prompt, Seen, Segmenter


def prompted_masks(segmenter: Segmenter, seen: Seen, prompt: Prompt) -> list[Found]:
    """The masks of a prompt, the best first: three of a single point, else one.

    Raises:
      ValueError: a prompt that does not fit the image.
    """
    masks = segmenter.masks(seen, [prompt])
    ambiguous = len(prompt.points) == 1 and prompt.box is None
    which = np.arange(1, masks.iou.shape[1]) if ambiguous else np.zeros(1, int)
    which = which[np.argsort(-masks.iou[0, which], kind="stable")]
    full = segmenter.enlarge(masks.logits[0, which], seen)
    boxes, stable = rules.boxes_of(full > 0), rules.stability(full, Settings().offset)
    point = tuple(prompt.points[0]) if prompt.points else tuple(prompt.box[:2])
    return [
        Found(rle.encode(m > 0), float(masks.iou[0, k]), float(s), tuple(b.tolist()), point)
        for m, k, s, b in zip(full, which, stable, boxes)
    ]
