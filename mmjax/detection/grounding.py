"""Where in an image a phrase is: by a detector, or by Grad-CAM of a model that matches texts.

Source: ALBEF, Li et al. 2021 (arXiv 2107.07651), section 6.4, for Grad-CAM as grounding.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy import ndimage

from mmjax.detection.boxes import sigmoid
from mmjax.detection.detector import Detector
from mmjax.evals.grad_cam import grad_cam, middle
from mmjax.layers.sown import cross_gradients
from mmjax.pretrained import Pretrained

CUT = 0.5  # of a map's largest value: cells above it can be in the box


class Place(NamedTuple):
    """A map [rows, columns] of the model's input, not negative, and a box [4], as fractions."""

    heatmap: np.ndarray
    box: np.ndarray
    score: float

    @property
    def point(self) -> np.ndarray:
        """[2]: x and y of the middle of the map's largest cell, as fractions."""
        row, column = np.unravel_index(self.heatmap.argmax(), self.heatmap.shape)
        return (np.asarray([column, row]) + 0.5) / self.heatmap.shape[::-1]


def by_detector(detector: Detector, image: np.ndarray, phrase: str) -> Place:
    """The box that scores best for the phrase, in a prepared image [H, W, 3].

    The map is the score of each patch.
    """
    queries = detector.texts([phrase], ["{}"])
    found = detector.outputs([image], queries)
    scores = sigmoid(found["query_logits"][0, :, 0])
    patch = detector.loaded.model.image_tower(parent=None).sizes["patch_size"]
    rows, columns = (side // patch for side in image.shape[:2])
    best = int(scores.argmax())
    box = found["pred_boxes"][0, best].clip(0, 1)
    return Place(scores.reshape(rows, columns), box, float(scores[best]))


def by_grad_cam(loaded: Pretrained, image: np.ndarray, phrase: str) -> Place:
    """Grad-CAM of the cross-attention of an ALBEF or BLIP, averaged over the phrase's tokens.

    Args:
      image: prepared, uint8 [H, W, 3].

    Returns:
      The map, its box (see `box_of_map`), and the probability that image and phrase match.

    Raises:
      ValueError: a model without `match_logits`, or without cross-attention of text to image.
    """
    words = loaded.need_tokenizer()
    text, mask = (np.asarray(x) for x in words.encode([phrase], loaded.text_length))
    batch = {"image": image[None], "text": text, "text_mask": mask}
    shapes = jax.eval_shape(loaded.model.apply, loaded.variables, batch)
    if "match_logits" not in shapes:
        raise ValueError(
            f"A '{loaded.config['name']}' does not match images with texts: give an ALBEF or a "
            "BLIP for retrieval, or a detector."
        )

    def score(outputs):
        logits = outputs["match_logits"]
        return logits[:, 1].sum(), jax.nn.softmax(logits, -1)[:, 1]

    run = jax.jit(lambda v, b: cross_gradients(loaded.model.apply, v, b, score))
    probability, weights, gradients = jax.device_get(run(loaded.variables, batch))
    if not gradients:
        raise ValueError(f"A '{loaded.config['name']}' has no cross-attention to look at.")
    stack = max(gradients, key=lambda path: np.abs(gradients[path]).max())
    layer = middle(len(weights[stack]))
    maps = grad_cam(weights[stack][layer], gradients[stack][layer], *image.shape[:2])[0]
    special = [i for i in {words.bos_id, *words.end_ids} if i is not None]
    shown = mask[0] & ~np.isin(text[0], special)
    heatmap = maps[: len(shown)][shown[: len(maps)]].mean(0)
    return Place(heatmap, box_of_map(heatmap), float(probability[0]))


def box_of_map(heatmap: np.ndarray, cut: float = CUT) -> np.ndarray:
    """[4]: the box around the cells above `cut` times the largest that are connected with it.

    A map of zeros gives the whole image.
    """
    if heatmap.max() <= 0:
        return np.asarray([0.0, 0.0, 1.0, 1.0])
    parts, _ = ndimage.label(heatmap >= cut * heatmap.max())
    rows, columns = np.nonzero(parts == parts.flat[heatmap.argmax()])
    height, width = heatmap.shape
    low = [columns.min() / width, rows.min() / height]
    return np.asarray([*low, (columns.max() + 1) / width, (rows.max() + 1) / height])
