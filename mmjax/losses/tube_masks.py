"""Masks of a video that are the same at all times."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def tube_masks(
    keys: Key[Array, " b"], grid: tuple[int, int, int], masked: int
) -> tuple[Int[Array, "b k"], Bool[Array, "b n"]]:
    """The tubelets that are not masked, in ascending order, and which are masked.

    Of the places of a frame `masked` are drawn and masked at all times: a tubelet could otherwise
    be copied from a neighbor in time. Row i depends on key i alone.

    Args:
      grid: tubelets along time, height and width.

    Raises:
      ValueError: as many masked places as there are, or none.

    Source: Tong et al. 2022 (arXiv 2203.12602), section 3.3, "tube masking"; MCG-NJU/VideoMAE,
    masking_generator.py.
    """
    times, height, width = grid
    places = height * width
    if not 0 < masked < places:
        raise ValueError(
            f"A mask of {masked} of {height} x {width} places leaves nothing to see or to predict: "
            f"use 1 to {places - 1} (config.loss.mask_ratio)."
        )

    def row(key):
        seen = jnp.sort(jax.random.permutation(key, places)[masked:])
        unseen = jnp.ones(places, bool).at[seen].set(False)
        visible = jnp.arange(times)[:, None] * places + seen[None]
        return visible.reshape(-1).astype(jnp.int32), jnp.tile(unseen, times)

    return jax.vmap(row)(keys)
