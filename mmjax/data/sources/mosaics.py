"""Mosaics: images of a source put together in a grid, with their boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.draws import PLACES, row_rng
from mmjax.data.regions import Regions
from mmjax.data.source import Source, without_media
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.decode import as_rgb, decode_image

GRIDS = (0.4, 0.3, 0.3)  # scenic, projects/owl_vit/configs/clip_b32.py


def open_mosaics(
    source: Source, length: int, size: int, grids: tuple[float, ...] = GRIDS, seed: int = 0
) -> "Mosaics":
    """`length` images, each a square grid of images of the source, stretched to equal tiles.

    Mosaic i has example i mod N of the source, and others drawn by the seed and i, at random
    places.

    Args:
      source: images with `regions`.
      size: pixels of a side, which every grid divides.
      grids: probabilities of a single image, of 2 x 2 images, of 3 x 3 and so on.

    Raises:
      ValueError: a length below 1, probabilities that are none, or a grid that does not divide the
        size.

    Source: OWL-ViT, Minderer et al. 2022 (arXiv 2205.06230), appendix A1; scenic,
    projects/owl_vit/preprocessing/mosaic.py.
    """
    if length < 1 or not len(source):
        raise ValueError(f"{length} mosaics of {len(source)} images: use 1 or more of each.")
    if not grids or min(grids) < 0 or abs(sum(grids) - 1) > 1e-6:
        raise ValueError(f"The probabilities of grids are {grids}: they must add up to 1.")
    wrong = [g for g, p in enumerate(grids, 1) if p and size % g]
    if wrong:
        raise ValueError(
            f"A mosaic of {size} pixels has no {wrong[0]} equal tiles in a row: make size a "
            f"multiple of {np.lcm.reduce(range(1, len(grids) + 1))}."
        )
    return Mosaics(source, length, size, tuple(grids), seed)


class Mosaics(Source):
    """See `open_mosaics`. `image` is uint8 `[S, S, 3]`; `regions` are those of all tiles, without
    masks; `negative` classes are those of any tile that no tile shows. Its corpus is its class
    names, of which queries are made."""

    def __init__(self, source: Source, length: int, size: int, grids: Sequence[float], seed: int):
        self.name, self.class_names = f"mosaics of {source.name}", source.class_names
        self.corpus = source.class_names
        self._source, self._length, self._size = source, length, size
        self._grids, self._seed = grids, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        grid, tiles = self._tiles(index)
        examples = [self._source[i] for i in tiles]
        side = self._size // grid
        image = np.zeros((self._size, self._size, 3), np.uint8)
        for k, example in enumerate(examples):
            top, left = side * (k // grid), side * (k % grid)
            tile = image_ops.resize(_pixels(example["image"]), (side, side), "bilinear")
            image[top : top + side, left : left + side] = tile
        return {**self._merged(index, grid, examples), "image": image}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`."""
        grid, tiles = self._tiles(index)
        return self._merged(index, grid, [self._source.meta(i) for i in tiles])

    def _tiles(self, index: int) -> tuple[int, list[int]]:
        """The tiles in a row, and the example of each place."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        rng, count = row_rng(self._seed, index, PLACES), len(self._source)
        grid = 1 + int(rng.choice(len(self._grids), p=self._grids))
        others = rng.integers(count, size=grid * grid - 1).tolist()
        return grid, rng.permutation([index % count, *others]).tolist()

    def _merged(self, index: int, grid: int, examples: list[dict[str, Any]]) -> dict[str, Any]:
        merged = {"key": f"{self.name}[{index}]"}
        if len(examples) == 1:
            merged = {**without_media(examples[0]), **merged}
        merged["regions"] = joined([example["regions"] for example in examples], grid, self._size)
        if all("negative" in example for example in examples):
            shown = set(merged["regions"].labels.tolist())
            for name in ("negative", "not_exhaustive"):
                every = {k for example in examples for k in example.get(name, ())}
                merged[name] = sorted(every - shown if name == "negative" else every)
        return merged


def joined(parts: Sequence[Regions], grid: int, size: int) -> Regions:
    """The regions of `grid` x `grid` images, row by row, in the mosaic of them."""
    boxes, areas = [], []
    for k, part in enumerate(parts):
        corner = np.asarray([k % grid, k // grid] * 2, np.float64)
        boxes.append((part.boxes + corner) / grid)
        areas.append(part.areas * (size / grid) ** 2 / (part.height * part.width))
    labels, crowd = ([getattr(p, name) for p in parts] for name in ("labels", "crowd"))
    boxes, areas, labels, crowd = map(np.concatenate, (boxes, areas, labels, crowd))
    return Regions(size, size, boxes, labels, [None] * len(boxes), crowd, areas)


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return as_rgb(image, (255, 255, 255))
    return image_ops.to_array(decode_image(image, None, (255, 255, 255)))
