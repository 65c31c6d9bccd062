"""The k largest of a long row, in two stages."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, ArrayLike, Float, Int


def top_k(
    x: Float[ArrayLike, "row vocab"], k: int
) -> tuple[Float[Array, "row {k}"], Int[Array, "row {k}"]]:
    """The exact k largest values of each row, largest first, and their indices: x [R, V] -> [R, k].

    Column j of the row as a [V/G, G] matrix is a group; only the k groups with the largest maxima
    can hold any of the k largest. So the sorts are over G and over k · V/G values, not over V. Ties
    are broken arbitrarily.
    """
    size = x.shape[1]
    groups = _groups(size, k)
    if groups is None:
        return tuple(jax.lax.top_k(x, k))
    length = -(-size // groups)
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    padded = jnp.pad(x, ((0, 0), (0, groups * length - size)), constant_values=lowest)
    padded = rearrange(padded, "row (length group) -> row length group", group=groups)
    _, best = jax.lax.top_k(padded.max(1), k)
    members = jnp.take_along_axis(padded, best[:, None, :], axis=2)
    values, place = jax.lax.top_k(rearrange(members, "row length k -> row (length k)"), k)
    index = place // k * groups + jnp.take_along_axis(best, place % k, axis=1)
    return values, index


def _groups(size: int, k: int) -> int | None:
    """The number of groups that keeps both stages short; None where one stage is as fast."""
    groups = max(4 * k, int((size * k) ** 0.5))
    return groups if 4 * k * -(-size // groups) < size else None
