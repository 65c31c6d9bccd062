"""Features inserted into a sequence of embedded tokens, at the places of a placeholder token."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def insert(
    x: Float[Array, "b l d"], features: Float[Array, "b s d"], places: Bool[Array, "b l"]
) -> Float[Array, "b l d"]:
    """The k-th place of a row gets its k-th feature; the other tokens stay.

    Places beyond the features of their row get the last one: callers compare the counts.
    Source: Liu et al. 2023 (arXiv 2304.08485), section 4.1; as transformers'
    LlavaModel.forward (masked_scatter), but row by row and of static shape.
    """
    index = jnp.cumsum(places, axis=1, dtype=jnp.int32) - 1
    index = jnp.clip(index, 0, features.shape[1] - 1)
    inserted = jnp.take_along_axis(features, index[:, :, None], axis=1)
    return jnp.where(places[:, :, None], inserted.astype(x.dtype), x)
