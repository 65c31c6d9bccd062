"""Vectors as codes: their principal components, each in one of a number of buckets."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.system import BUFFERS

LIMIT = 4.0  # standard deviations of a component that its buckets reach to


class PrincipalCodes(nn.Module):
    """Vectors [B, E] -> codes [B, K] int32, the component of the largest variance first; and back.

    The buckets of a component are equally wide and reach to 4 standard deviations on either side.
    The buffers are those of `fitted`, which finds the components; before that codes mean nothing.

    Attributes:
      width: E; components: K.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.2, which does not say how far buckets
    reach.
    """

    width: int
    components: int
    buckets: int

    def setup(self):
        size, count = self.width, self.components
        initial = {
            "count": jnp.zeros(()),
            "sum": jnp.zeros(size),
            "square": jnp.zeros((size, size)),
            "mean": jnp.zeros(size),
            "basis": jnp.eye(size, count),
            "deviation": jnp.ones(count),
            "kept": jnp.zeros(()),
        }
        self.book = {
            name: self.variable(BUFFERS, name, lambda x=x: x).value for name, x in initial.items()
        }

    def __call__(self, vectors: jax.Array) -> jax.Array:
        centered = vectors.astype(jnp.float32) - self.book["mean"][None]
        y = jnp.matmul(centered, self.book["basis"], precision="highest")
        return bucket(y / self.book["deviation"][None], LIMIT, self.buckets)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Vectors [B, E] with each component in the middle of its bucket."""
        middle = codes.astype(jnp.float32) + 0.5
        y = (middle * (2 * LIMIT / self.buckets) - LIMIT) * self.book["deviation"][None]
        back = jnp.matmul(y, self.book["basis"].T, precision="highest")
        return back + self.book["mean"][None]


def bucket(x: Float[Array, "..."], limit: float, buckets: int) -> Int[Array, "..."]:
    """The number of the bucket of values, of equally wide ones from -limit to limit."""
    place = jnp.floor((x + limit) * (buckets / (2 * limit)))
    return jnp.clip(place, 0, buckets - 1).astype(jnp.int32)


def fitted(
    book: Mapping[str, jax.Array],
    vectors: Float[Array, "b e"],
    valid: Bool[Array, " b"],
    examples: int,
) -> dict[str, jax.Array]:
    """The buffers of `PrincipalCodes` after a step.

    They count and sum up vectors until there are `examples`, then get the components of these, and
    never change again. `kept` is the fraction of the variance in the components.

    Args:
      valid: the vectors that count.
    """
    x = jnp.where(valid[:, None], jax.lax.stop_gradient(vectors).astype(jnp.float32), 0.0)
    count = book["count"] + valid.sum(dtype=jnp.float32)
    total = book["sum"] + x.sum(0)
    square = book["square"] + jnp.matmul(x.T, x, precision="highest")
    summed = {**book, "count": count, "sum": total, "square": square}

    def solved() -> dict[str, jax.Array]:
        mean = total / count
        variance, axes = jnp.linalg.eigh(square / count - jnp.outer(mean, mean))
        components = len(book["deviation"])
        largest = jnp.maximum(variance[::-1][:components], 1e-12)
        kept = largest.sum() / jnp.maximum(variance.sum(), 1e-12)
        found = {"mean": mean, "basis": axes[:, ::-1][:, :components], "kept": kept}
        return {**summed, **found, "deviation": jnp.sqrt(largest)}

    began = book["count"] < examples
    new = jax.lax.cond(began & (count >= examples), solved, lambda: summed)
    return {name: jnp.where(began, new[name], book[name]) for name in book}
