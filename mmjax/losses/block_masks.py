"""Masks of whole blocks of an image's patches."""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Key

ASPECT = 0.3  # of the narrowest block
FAILURES = 10  # in a row, after which an image gets no further block
DRAWS = 64  # of which a mask takes about half


def mask_blocks(
    keys: Key[Array, " b"], grid: tuple[int, int], *, total: int, smallest: int
) -> Bool[Array, "b patches"]:
    """The patches of each image to mask: rectangles, together at most `total` patches.

    A rectangle has an area drawn between `smallest` and what is left of `total`, an aspect ratio
    between 0.3 and its inverse (uniform in the logarithm) and a place, and is drawn again where it
    is as long as a side of the grid, adds nothing, or too much. Row i depends on key i alone.

    Args:
      grid: (rows, columns) of patches.

    Raises:
      ValueError: numbers of patches that the grid does not have.

    Source: BEiT, Bao et al. 2022 (arXiv 2106.08254), algorithm 1; microsoft/unilm, beit,
    masking_generator.py, up to the limit of DRAWS draws.
    """
    if not 0 < smallest <= total < math.prod(grid):
        raise ValueError(
            f"Blocks of at least {smallest} patches are to mask {total} of {grid[0]} x {grid[1]}: "
            "use numbers of patches in this order, above 0 and below that of the image."
        )

    def row(key):
        return from_draws(jax.random.uniform(key, (DRAWS, 4)), grid, total, smallest)

    return rearrange(jax.vmap(row)(keys), "b h w -> b (h w)")


def from_draws(
    draws: Float[Array, "n 4"], grid: tuple[int, int], total: int, smallest: int
) -> Bool[Array, "h w"]:
    """The mask of one image, from uniform numbers for area, aspect ratio, top and left."""
    height, width = grid
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]

    def place(i, state):
        mask, failures = state
        area, aspect, top, left = draws[i]
        rest = total - mask.sum(dtype=jnp.int32)
        area = smallest + area * (rest.astype(jnp.float32) - smallest)
        aspect = jnp.exp((2 * aspect - 1) * -math.log(ASPECT))
        h = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
        w = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
        top = _below(top, height - h + 1)
        left = _below(left, width - w + 1)
        block = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
        added = jnp.sum(block & ~mask, dtype=jnp.int32)
        fits = (h < height) & (w < width) & (added > 0) & (added <= rest)
        fits &= (failures < FAILURES) & (rest > 0)
        return mask | (block & fits), jnp.where(fits, 0, failures + 1)

    start = jnp.zeros(grid, bool), jnp.zeros((), jnp.int32)
    return jax.lax.fori_loop(0, len(draws), place, start)[0]


def _below(draw: Float[Array, ""], count: jax.Array) -> jax.Array:
    """A whole number from 0 to count - 1; the draw is in [0, 1)."""
    return jnp.floor(draw * count.astype(jnp.float32)).astype(jnp.int32)
