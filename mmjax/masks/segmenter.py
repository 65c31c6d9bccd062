"""A SAM that has seen an image: masks of points and boxes, in the image's own pixels."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.data.transforms import parse as transforms
from mmjax.models.sam import SAM
from mmjax.pretrained import Pretrained


class Seen(NamedTuple):
    """An encoded image: its feature map [1, h, w, D], its height and width in pixels, and those
    that it was resized to."""

    embedding: jax.Array
    size: tuple[int, int]
    resized: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What one object is, in pixels of the image.

    Attributes:
      points: (x, y) of each; labels: 1 on the object, 0 beside it.
      box: (x0, y0, x1, y1), or None.
      logits: [h, w], the logits of an earlier mask of it, or None.
    """

    points: Sequence[tuple[float, float]] = ()
    labels: Sequence[int] = ()
    box: tuple[float, float, float, float] | None = None
    logits: np.ndarray | None = None

    def check(self, size: tuple[int, int], side: int) -> None:
        """Raise ValueError for a prompt that does not fit an image of `size` = (height, width).

        Args:
          side: of the logits.
        """
        height, width = size
        if len(self.points) != len(self.labels) or not set(self.labels) <= {0, 1}:
            raise ValueError(
                f"A prompt has {len(self.points)} points and the labels {list(self.labels)}: give "
                "each point a label, 1 on the object or 0 beside it."
            )
        if self.box is None and self.logits is None and 1 not in self.labels:
            raise ValueError(
                "A prompt names no object: give it a point on the object, or a box around it."
            )
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(
                    f"The point ({x:g}, {y:g}) is outside of the image, which is {width}x{height} "
                    f"pixels: x is from 0 to {width - 1}, y from 0 to {height - 1}."
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (x0 < x1 and y0 < y1) or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                raise ValueError(
                    f"The box {tuple(self.box)} has no pixel of the image, which is "
                    f"{width}x{height}: a box is x0,y0,x1,y1 with x0 < x1 and y0 < y1."
                )
        if self.logits is not None and np.shape(self.logits) != (side, side):
            raise ValueError(
                f"The mask of a prompt is {'x'.join(map(str, np.shape(self.logits)))}, and the "
                f"model takes logits of {side}x{side}, those that it gives."
            )


class Masks(NamedTuple):
    """Masks of N objects, K each: low-resolution logits [N, K, h, w] and predicted IoU [N, K]."""

    logits: np.ndarray
    iou: np.ndarray


class Segmenter:
    """A SAM for single images.

    Raises:
      ValueError: another model.
    """

    def __init__(self, loaded: Pretrained):
        if not isinstance(loaded.model, SAM):
            raise ValueError(
                f"A '{loaded.config['name']}' does not segment images by prompts: give a SAM."
            )
        self.loaded = loaded
        encoder = loaded.model.encoder(parent=None)
        self.side, self.low = encoder.image_size, 4 * encoder.side
        steps = loaded.transform
        if "resize_long" not in steps:  # a run whose images have the model's size already
            steps = f"decode | resize_long({self.side}, 'bilinear') | pad_corner({self.side})"
        self._prepare = transforms.parse(steps)
        self._apply = jax.jit(loaded.model.apply)

    def see(self, image: bytes | np.ndarray) -> Seen:
        """Encode an image: an encoded one, or its pixels [H, W, 3].

        Raises:
          ValueError: it cannot be decoded.
        """
        pixels = transforms.parse("decode")({"image": image}, np.random.default_rng(0))["image"]
        made = self._prepare({"image": pixels}, np.random.default_rng(0))
        batch = {k: made[k][None] for k in ("image", "image_size")}
        found = self._apply(self.loaded.variables, batch)
        return Seen(found["image_embedding"], pixels.shape[:2], tuple(made["image_size"].tolist()))

    def masks(self, seen: Seen, prompts: Sequence[Prompt]) -> Masks:
        """All 1 + 3 masks of each prompt; prompts have the same number of points, and either all a
        box or none, and likewise a mask.

        Raises:
          ValueError: a prompt that does not fit the image.
        """
        for prompt in prompts:
            prompt.check(seen.size, self.low)
        first, scale = prompts[0], np.asarray(seen.resized[::-1]) / seen.size[::-1] / self.side
        batch: dict[str, Any] = {"image_embedding": seen.embedding}
        if len(first.points):
            points = np.asarray([prompt.points for prompt in prompts]) * scale
            batch["prompt_points"] = points.astype(np.float32)[None]
            batch["prompt_labels"] = np.asarray([p.labels for p in prompts], np.int32)[None]
        if first.box is not None:
            boxes = np.asarray([prompt.box for prompt in prompts]) * np.concatenate([scale, scale])
            batch["prompt_boxes"] = boxes.astype(np.float32)[None]
        if first.logits is not None:
            logits = np.stack([prompt.logits for prompt in prompts]).astype(np.float32)
            batch["prompt_masks"] = logits[None]
        found = self._apply(self.loaded.variables, batch)
        return Masks(np.asarray(found["mask_logits"][0]), np.asarray(found["iou"][0]))

    def enlarge(self, logits: np.ndarray, seen: Seen) -> np.ndarray:
        """Low-resolution logits [N, h, w] at the size of the image, [N, H, W].

        Bilinearly to the model's square, of which the padding is cut off, and then to the image: as
        both steps are linear, and the same for every row and column, they are one matrix for each.
        """
        rows, columns = (
            bilinear(resized, size) @ bilinear(self.low, self.side)[:resized]
            for resized, size in zip(seen.resized, seen.size)
        )
        return np.matmul(np.matmul(rows, logits), columns.T)


def bilinear(old: int, new: int) -> np.ndarray:
    """[new, old] float32: weights of linear interpolation between the middles of `old` pixels, the
    first and last repeated; not smoothed, as torch's interpolate."""
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0).astype(np.float32)
