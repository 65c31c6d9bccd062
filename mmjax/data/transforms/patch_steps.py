"""Images at their own aspect ratio, as rows of patches: see `models/naflex.py`."""

import functools
import inspect
import math

import numpy as np
from PIL import Image

from mmjax.data.transforms import chain, image_ops
from mmjax.data.transforms.captions import example_name
from mmjax.data.transforms.decode import MAX_PIXELS


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
    if budget * patch_size**2 > MAX_PIXELS:
        raise ValueError(
            f"{budget} patches of {patch_size}x{patch_size} exceed the {MAX_PIXELS:,} pixels that "
            "an image may have: lower one of them"
        )

    def f(example, rng):
        image = example.get("image")
        if not isinstance(image, np.ndarray | Image.Image):
            raise ValueError(
                "patches takes one image, an array: put decode first in the chain, and give each "
                "example one image"
            )
        size = size_in_patches(*image_ops.size_of(image), patch_size, budget, enlarge)
        small = image_ops.to_array(image_ops.resize(image, size, method))
        return {**example, **row_of(small, patch_size, budget)}

    return f


def row_of(image, patch, length):
    """`image` `[length, patch * patch * 3]` and `image_grid` of an image of whole patches."""
    cut = _cut(image, patch)
    row = np.zeros((length, cut.shape[1]), np.uint8)
    row[: len(cut)] = cut
    return {"image": row, "image_grid": np.asarray(image.shape[:2], np.int32) // patch}


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


def uncut(row, grid):
    """The image `[H, W, 3]` of a row of patches, whose grid is (rows, columns); those of several
    images, `grid` `[M, 2]`, side by side on white."""
    if np.ndim(grid) == 2:
        ends = np.cumsum(np.prod(grid, axis=1))
        images = [
            uncut(row[end - h * w :], (h, w)) for end, (h, w) in zip(ends, grid.tolist()) if h
        ]
        height = max(len(image) for image in images)
        below = [((0, height - len(image)), (0, 0), (0, 0)) for image in images]
        padded = [np.pad(x, pad, constant_values=255) for x, pad in zip(images, below)]
        return np.concatenate(padded, axis=1)
    rows, columns = (int(n) for n in grid)
    patch = math.isqrt(row.shape[-1] // 3)
    image = row[: rows * columns].reshape(rows, columns, patch, patch * 3)
    return image.transpose(0, 2, 1, 3).reshape(rows * patch, columns * patch, 3)


def as_image(example):
    """The image `[H, W, 3]` of an example or of a row of a batch that may have it in patches."""
    image = example["image"]
    return uncut(image, example["image_grid"]) if image.ndim == 2 else image


def budget_of(transform):
    """(budget, patch_size) of the step `patches` of a chain; None: it has none."""
    given = [(args, kwargs) for name, args, kwargs, _ in chain.read(transform) if name == "patches"]
    if not given:
        return None
    args, kwargs = given[0]
    found = inspect.signature(patches).bind(*args, **kwargs).arguments
    return found["budget"], found["patch_size"]
