"""Images split into tiles of one size, as Idefics3 and SmolVLM read them."""

import math

import numpy as np

from mmjax.data.transforms import image_ops


def tiles(side, longest, split=True, method="lanczos"):
    """Each image becomes square tiles of `side` pixels, row by row, and then the whole of it.

    The longer side is first resized to `longest`, then both sides to multiples of `side`, and this
    image, which is also resized to a square for the whole. An image that then is a single square is
    not split. `image` becomes a tuple, and `image_grid` int32 `[images, 2]`: rows and columns of
    the tiles of each image before the whole; 0 and 0: none.

    Args:
      split: False: no tiles, only the whole.
      method: of resizing, see `resize`.

    Source: transformers, image_processing_pil_idefics3.py.
    """

    def f(example, rng):
        image = example.get("image")
        images = image if isinstance(image, tuple) else (image,)
        if any(isinstance(x, bytes) or x is None for x in images):
            raise ValueError("put decode first in the chain: 'image' is not an array yet")
        parts = [_split(image_ops.to_array(x), side, longest, split, method) for x in images]
        grid = np.asarray([grid for _, grid in parts], np.int32).reshape(-1, 2)
        whole = tuple(tile for tiles, _ in parts for tile in tiles)
        return {**example, "image": whole, "image_grid": grid}

    return f


def _split(image, side, longest, split, method):
    """The tiles of one image `[H, W, 3]`, and their rows and columns."""

    def resize(image, size):
        return image_ops.resize(image, size, method)

    image = resize(image, scaled(image.shape[:2], longest))
    if not split:
        return [resize(image, (side, side))], (0, 0)
    image = resize(image, multiples(image.shape[:2], side))
    rows, columns = (n // side for n in image.shape[:2])
    if rows * columns == 1:
        return [image], (0, 0)
    cut = [
        image[r * side : (r + 1) * side, c * side : (c + 1) * side]
        for r in range(rows)
        for c in range(columns)
    ]
    return [*cut, resize(image, (side, side))], (rows, columns)


def scaled(size, longest):
    """(height, width) with the longer side `longest`, and the other rounded to an even number."""
    height, width = size
    ratio = width / height
    if width >= height:
        shorter = int(longest / ratio)
        return max(shorter + shorter % 2, 1), longest
    shorter = int(longest * ratio)
    return longest, max(shorter + shorter % 2, 1)


def multiples(size, side):
    """(height, width) rounded up to multiples of `side`, the longer one first."""
    height, width = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / ratio) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * ratio) / side) * side
