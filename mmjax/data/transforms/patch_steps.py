"""Images at their own aspect ratio, as rows of patches: see `models/naflex.py`."""

import functools
import math

import numpy as np
from PIL import Image

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.captions import example_name


def patches(budget, patch_size, method="bilinear", enlarge=True):
    """The image in at most `budget` patches: `image` uint8 `[budget, patch_size**2 * 3]`.

    It is resized to the largest whole number of patches that keeps its aspect ratio up to the
    rounding of both sides. `image_grid` int32 `[2]` are its rows and columns of patches; those of
    the array after them are padding. The last step of the image.

    Args:
      method: of resizing, see `resize`.
      enlarge: False: an image that is smaller than the budget is not enlarged beyond the next
        whole patches.

    Source: Tschannen et al. 2025 (arXiv 2502.14786); transformers, image_processing_siglip2.py.
    """
    image_ops.resampling(method)
    if min(budget, patch_size) < 1:
        raise ValueError(f"budget {budget} and patch_size {patch_size} must be 1 or more")

    def f(example, rng):
        image = example.get("image")
        if not isinstance(image, np.ndarray | Image.Image):
            raise ValueError(
                "patches takes one image, an array: put decode first in the chain, and give each "
                "example one image"
            )
        size = size_in_patches(*image_ops.size_of(image), patch_size, budget, enlarge)
        cut = _cut(image_ops.to_array(image_ops.resize(image, size, method)), patch_size)
        row = np.zeros((budget, cut.shape[1]), np.uint8)
        row[: len(cut)] = cut
        grid = np.asarray(size, np.int32) // patch_size
        return {**example, "image": row, "image_grid": grid}

    return f


def pack(length, images):
    """Joins the members of an example of the source `packed` to a row, after `patches` and
    `tokenize`: `image` `[length, P]`, their patches one after the other, `image_grid` int32
    `[images, 2]`, and `text...` `[images, ...]`; places without an image are zeros.

    An example that is not packed becomes a row of one. The last step of the chain.

    Source: Dehghani et al. 2023 (arXiv 2307.06304, NaViT), section 2.1.
    """
    if min(length, images) < 1:
        raise ValueError(f"length {length} and images {images} must be 1 or more")

    def f(example, rng):
        members = example.get("members", [example])
        grids = [one.get("image_grid") for one in members]
        if any(grid is None or np.shape(grid) != (2,) for grid in grids):
            raise ValueError("pack comes after patches in the chain")
        counts = [int(grid.prod()) for grid in grids]
        if len(members) > images or sum(counts) > length:
            raise ValueError(
                f"example {example_name(example)} has {len(members)} images of {sum(counts)} "
                f"patches, and a row has room for {images} and {length}: write the file of packs "
                "for this transform, or give pack() more room"
            )
        row = np.zeros((length, members[0]["image"].shape[1]), np.uint8)
        cut = [one["image"][:count] for one, count in zip(members, counts)]
        row[: sum(counts)] = np.concatenate(cut)
        made = {"image": row, "image_grid": _slots(grids, images)}
        for name in members[0]:
            if name.startswith("text") and isinstance(members[0][name], np.ndarray):
                made[name] = _slots([one[name] for one in members], images)
        return {"key": example.get("key"), **made}

    f.joins = True
    return f


def _slots(arrays, count):
    """The arrays of one shape, and zeros, stacked: `[count, ...]`."""
    stacked = np.zeros((count, *arrays[0].shape), arrays[0].dtype)
    stacked[: len(arrays)] = arrays
    return stacked


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
