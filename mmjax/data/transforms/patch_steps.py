"""Images at their own aspect ratio, as rows of patches: see `models/naflex.py`."""

import functools
import math

import numpy as np

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.captions import example_name


def patches(budget, patch_size, method="bilinear", enlarge=True, row=None, images=None):
    """The image in at most `budget` patches: `image` uint8 `[budget, patch_size**2 * 3]`.

    It is resized to the largest whole number of patches that keeps its aspect ratio up to the
    rounding of both sides. `image_grid` int32 `[2]` are its rows and columns of patches; those of
    the array after them are padding. The last step of the image.

    Args:
      method: of resizing, see `resize`.
      enlarge: False: an image that is smaller than the budget is not enlarged beyond the next
        whole patches.
      row, images: of examples that the source `packed` has packed: several images to a row of `row`
        patches and at most `images` images, `image_grid` `[images, 2]`.

    Source: Tschannen et al. 2025 (arXiv 2502.14786); transformers, image_processing_siglip2.py.
    """
    image_ops.resampling(method)
    packed = row is not None
    if min(budget, patch_size) < 1 or packed != (images is not None):
        raise ValueError(
            f"budget {budget} and patch_size {patch_size} must be 1 or more, and row and images be "
            "given together"
        )
    if packed and (row < budget or images < 1):
        raise ValueError(
            f"a row of {row} patches and {images} images has no room for one image of {budget} "
            "patches: raise row, or lower the budget"
        )
    length, slots = (row, images) if packed else (budget, 1)

    def of_one(image):
        size = size_in_patches(*image_ops.size_of(image), patch_size, budget, enlarge)
        small = image_ops.to_array(image_ops.resize(image, size, method))
        return _cut(small, patch_size), [side // patch_size for side in size]

    def f(example, rng):
        several = example.get("image")
        several = several if isinstance(several, tuple) else (several,)
        if any(isinstance(x, bytes) or x is None for x in several):
            raise ValueError("put decode first in the chain: 'image' is not an array yet")
        cut = [of_one(image) for image in several]
        used = sum(len(made) for made, _ in cut)
        if len(cut) > slots or used > length:
            raise ValueError(
                f"example {example_name(example)} has {len(cut)} images of {used} patches, and a "
                f"row has room for {slots} and {length}: "
                + ("write the file of packs again" if packed else "give patches() row and images")
            )
        image = np.zeros((length, 3 * patch_size**2), np.uint8)
        image[:used] = np.concatenate([made for made, _ in cut])
        grid = np.zeros((slots, 2), np.int32)
        grid[: len(cut)] = [sides for _, sides in cut]
        return {**example, "image": image, "image_grid": grid if packed else grid[0]}

    return f


@functools.lru_cache(maxsize=65_536)
def size_in_patches(height, width, patch, budget, enlarge=True):
    """(height, width), multiples of `patch`, of an image in at most `budget` patches.

    The largest scale at which both sides, rounded up to whole patches, fit, up to 1e-5: the same
    search as in transformers, so that images near the edge of a size get the same one.
    """

    def sides(scale):
        return tuple(max(patch, math.ceil(n * scale / patch) * patch) for n in (height, width))

    def fits(scale):
        rows, columns = (side // patch for side in sides(scale))
        return rows * columns <= budget

    if not enlarge and fits(1.0):
        return sides(1.0)
    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return sides(low)


def _cut(image, patch):
    """`[H, W, 3]` -> `[H / patch * W / patch, patch * patch * 3]`, row by row."""
    height, width, channels = image.shape
    image = image.reshape(height // patch, patch, width // patch, patch * channels)
    return image.transpose(0, 2, 1, 3).reshape(-1, patch * patch * channels)


def uncut(patches, grid):
    """The image `[H, W, 3]` of the first patches of a row, whose grid is (rows, columns)."""
    rows, columns = (int(n) for n in grid)
    patch = math.isqrt(patches.shape[-1] // 3)
    image = patches[: rows * columns].reshape(rows, columns, patch, patch * 3)
    return image.transpose(0, 2, 1, 3).reshape(rows * patch, columns * patch, 3)
