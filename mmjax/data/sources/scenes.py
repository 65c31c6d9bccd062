"""Synthetic scenes: cut-out objects put on a background at random, with exact masks.

The objects are real drawings or photographs with transparency; that they are together, where and
how large is drawn at random, so that any number of different images can be had.
"""

import collections
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data import rle
from mmjax.data.draws import PLACES, row_rng
from mmjax.data.regions import of_masks
from mmjax.data.source import Source

TRIES = 10  # places that are tried for an object, to keep those below it visible


def open_scenes(
    objects: Source,
    count: int,
    size: int = 256,
    seed: int = 0,
    per_scene: tuple[int, int] = (3, 8),
    scale: tuple[float, float] = (0.15, 0.45),
    name_key: str | None = None,
) -> "Scenes":
    """`count` images of several objects; each a pure function of the seed and its index.

    Args:
      objects: cut-outs, `image` with transparency and `label`, such as the sets ktuberling and
        tuxpaint. Examples with `background` true are the backgrounds; the objects of a scene and
        its background have the same `board`. Without any, the background is a color gradient with
        soft spots.
      size: of the images, in pixels, square.
      per_scene: the fewest and the most objects of an image.
      scale: longest side of an object, as fractions of the image's, drawn log-uniformly.
      name_key: the text field that names an object, such as `concept` of tuxpaint; None: the class
        of its `label`.

    Raises:
      ValueError: a source without objects or class names, or settings out of range.
    """
    if objects.class_names is None and name_key is None:
        raise ValueError(f"{objects.name} has no class names for its objects: set name_key.")
    if not 1 <= per_scene[0] <= per_scene[1] or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"per_scene is {per_scene} and scale {scale}: give the lowest and the highest number "
            "of objects, from 1 on, and of their size, from 0 to 1."
        )
    if count < 1 or size < 16:
        raise ValueError(f"count is {count} and size {size}: use 1 or more, and 16 or more.")
    return Scenes(objects, count, size, seed, per_scene, scale, name_key)


class Scenes(Source):
    """See `open_scenes`. `image` is uint8 `[S, S, 3]`; `regions` have the visible pixels of each
    object, from the lowest to the highest; `captions` their names in one text."""

    def __init__(
        self,
        objects: Source,
        count: int,
        size: int,
        seed: int,
        per_scene: tuple[int, int],
        scale: tuple[float, float],
        name_key: str | None,
    ):
        self.name = f"scenes of {objects.name}"
        self._objects, self._count, self._size, self._seed = objects, count, size, seed
        self._per_scene, self._scale = per_scene, scale
        self._images: dict[int, Image.Image] = {}
        self._groups: dict[str, list[int]] = collections.defaultdict(list)
        self._backgrounds: dict[str, list[int]] = collections.defaultdict(list)
        called: dict[int, str] = {}
        for i in range(len(objects)):
            meta = objects.meta(i)
            group = str(meta.get("board", ""))
            if meta.get("background"):
                self._backgrounds[group].append(i)
                continue
            self._groups[group].append(i)
            called[i] = meta[name_key] if name_key else objects.class_names[int(meta["label"])]
        if not self._groups:
            raise ValueError(f"{objects.name} has no objects to put on a background.")
        self.class_names = sorted(set(called.values())) if name_key else list(objects.class_names)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self._labels = {i: numbers[name] for i, name in called.items()}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"{self.name} has {self._count} examples, not one numbered {index}")
        rng = row_rng(self._seed, index, PLACES)
        # A board is drawn with the number of its objects, so that each object is as frequent.
        sizes = np.asarray([len(group) for group in self._groups.values()], np.float64)
        group = list(self._groups)[rng.choice(len(sizes), p=sizes / sizes.sum())]
        wanted = int(rng.integers(self._per_scene[0], self._per_scene[1] + 1))
        members = self._groups[group]
        chosen = rng.choice(members, wanted, replace=wanted > len(members))
        canvas = self._background(self._backgrounds.get(group, ()), rng)
        on_top = np.full((self._size, self._size), -1)  # which object each pixel shows
        areas, visible = np.zeros((2, wanted), np.int64)  # pixels of each
        for number, i in enumerate(chosen.tolist()):
            self._put(canvas, on_top, areas, visible, number, self._image(i), rng)
        seen = np.flatnonzero(visible)
        masks = [rle.encode(on_top == number) for number in seen]
        labels = [self._labels[int(chosen[number])] for number in seen]
        regions = of_masks(masks, labels, self._size, self._size)
        return {
            "key": f"{self.name}[{index}]",
            "board": group,
            "image": np.asarray(canvas),
            "captions": [", ".join(self.class_names[label] for label in regions.labels)],
            "regions": regions,
        }

    def _put(
        self,
        canvas: Image.Image,
        on_top: np.ndarray,
        areas: np.ndarray,
        visible: np.ndarray,
        number: int,
        cutout: Image.Image,
        rng: np.random.Generator,
    ) -> None:
        """Puts an object on the image, at the first place tried at which it leaves visible half
        of each one below it or more, else at the last."""
        longest = self._size * np.exp(rng.uniform(*np.log(self._scale)))
        ratio = longest / max(cutout.size)
        sides = [max(2, round(side * ratio)) for side in cutout.size]
        cutout = cutout.resize(sides, Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        alpha = np.asarray(cutout.getchannel("A")) > 127
        for _ in range(TRIES):
            left, top = (int(rng.integers(self._size - side + 1)) for side in cutout.size)
            place = np.s_[top : top + cutout.height, left : left + cutout.width]
            below = on_top[place][alpha]
            covered = np.bincount(below[below >= 0], minlength=len(areas))
            if np.all((visible - covered >= 0.5 * areas)[:number]):
                break
        canvas.paste(cutout, (left, top), cutout)
        on_top[place][alpha] = number
        areas[number] = visible[number] = alpha.sum()
        visible -= covered

    def _image(self, index: int) -> Image.Image:
        if index not in self._images:
            image = self._objects[index]["image"]
            opened = (
                Image.open(io.BytesIO(image))
                if isinstance(image, bytes)
                else Image.fromarray(np.asarray(image))
            )
            image = opened.convert("RGBA")
            box = image.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
            self._images[index] = image.crop(box) if box else image
        return self._images[index]

    def _background(self, boards: Sequence[int], rng: np.random.Generator) -> Image.Image:
        if not boards:
            return _gradient(self._size, rng)
        board = self._image(boards[int(rng.integers(len(boards)))]).convert("RGB")
        side = min(board.size)
        side = int(rng.integers(max(1, side * 3 // 5), side + 1))  # a square part of the board
        left, top = (int(rng.integers(length - side + 1)) for length in board.size)
        part = board.crop((left, top, left + side, top + side))
        return part.resize((self._size, self._size), Image.Resampling.BILINEAR)


def _gradient(size: int, rng: np.random.Generator) -> Image.Image:
    """A color gradient with soft spots: a few random colors, enlarged."""
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    spots = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    smooth, rough = (
        Image.fromarray(colors).resize((size, size), Image.Resampling.BICUBIC)
        for colors in (corners, spots)
    )
    return Image.blend(smooth, rough, 0.25)
