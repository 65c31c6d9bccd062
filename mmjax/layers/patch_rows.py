"""Rows of patches: images at their own aspect ratio, padded or packed to rows of one length.

Each image is a grid of patches, row by row; the grids say all: which patches are valid, which of
them belong together, and where each is in its image.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Cells(NamedTuple):
    """What each patch of rows [B, N] is a part of.

    Fields:
      image: [B, N] int32, number of its image in the row; M, the number of grids, for padding.
      place: [B, N, 2] int32, its row and column in that image; 0 and 0 for padding.
      grid: [B, N, 2] int32, rows and columns of that image; 1 and 1 for padding.
    """

    image: Int[Array, "b n"]
    place: Int[Array, "b n 2"]
    grid: Int[Array, "b n 2"]


def read_grids(grids: Int[Array, "b m 2"], length: int) -> Cells:
    """The cells of rows of `length` patches, which hold M images one after the other.

    Args:
      grids: rows and columns of each image, 0 and 0 where a row has fewer than M.

    Source: Dehghani et al. 2023 (arXiv 2307.06304, NaViT), section 2.1.
    """
    ends = jnp.cumsum(grids[..., 0] * grids[..., 1], axis=1)  # [B, M]
    at = jnp.arange(length, dtype=jnp.int32)[None]
    image = (at[:, :, None] >= ends[:, None, :]).sum(-1, dtype=jnp.int32)
    starts = jnp.pad(ends, ((0, 0), (1, 0)))
    offset = at - jnp.take_along_axis(starts, image, axis=1)
    offset = jnp.where(image < grids.shape[1], offset, 0)
    grids = jnp.pad(grids, ((0, 0), (0, 1), (0, 0)))
    grid = jnp.maximum(jnp.take_along_axis(grids, image[:, :, None], axis=1), 1)
    columns = grid[..., 1]
    return Cells(image, jnp.stack([offset // columns, offset % columns], -1), grid)


def members(cells: Cells, images: int) -> Bool[Array, "b m n"]:
    """Which patches each of `images` images of a row consists of."""
    return cells.image[:, None, :] == jnp.arange(images)[None, :, None]


def same_image(cells: Cells, images: int) -> Bool[Array, "b n n"]:
    """Which patches each patch attends to: those of its own image; padding to none."""
    valid = cells.image < images
    return (cells.image[:, :, None] == cells.image[:, None, :]) & valid[:, None, :]
