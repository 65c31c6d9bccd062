"""Many images as one."""

import math

import numpy as np
from einops import rearrange
from jaxtyping import UInt8

GAP = 2  # white pixels between two images


def columns_of(count: int) -> int:
    """Columns of a grid that is about square."""
    return math.ceil(math.sqrt(count))


def tile(images: UInt8[np.ndarray, "n h w 3"], columns: int) -> UInt8[np.ndarray, "H W 3"]:
    """Images [N, H, W, 3] in rows of so many, with white between them and in free places."""
    free = -len(images) % columns
    padded = np.pad(images, ((0, free), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    sheet = rearrange(padded, "(r c) h w d -> (r h) (c w) d", c=columns)
    return sheet[:-GAP, :-GAP]
