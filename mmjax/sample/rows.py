"""Noise with a key per row, so that a sample does not depend on the others of its batch."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float, Int, Key


def normal(keys: Key[Array, " b"], shape: Sequence[int]) -> Float[Array, "b ..."]:
    """Standard normal numbers [B, *shape], fp32."""
    return jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)


def numbered(keys: Key[Array, " b"], number: int | Int[Array, ""]) -> Key[Array, " b"]:
    """Another key for each row and number."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
