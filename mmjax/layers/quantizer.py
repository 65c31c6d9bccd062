"""Vector quantization: each vector becomes the nearest of a codebook that follows its vectors.

The codebook is no parameter: it is in the collection `codebook`, part of a system's memory, and
`updated` gives the next one, once a step, for `System.remember`:

    def remember(memory, outputs, batch, context):
        book = memory["codebook"]["quantizer"]
        book = updated(book, outputs["latents"], outputs["codes"], valid, context.rng[0])
        return {"codebook": {"quantizer": book}}

Source: van den Oord et al. 2017 (arXiv 1711.00937), equations 1 to 3 and appendix A.1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.system import CODEBOOK

_EPSILON = 1e-5  # of the counts, in vectors


class Quantized(NamedTuple):
    """What a `Quantizer` gives.

    Attributes:
      vectors: [..., D] float32, the nearest codes; their gradient goes to the input unchanged.
      codes: [...] int32, their numbers.
      commitment: [...] float32, the mean square over D of input - code, with a gradient to the
        input alone.
    """

    vectors: jax.Array
    codes: jax.Array
    commitment: jax.Array


class Quantizer(nn.Module):
    """Vectors [..., width] to the nearest codes, by Euclidean distance; see `Quantized`.

    Its variables are `codes` [N, width], `count` [N], the average number of vectors per step that
    each code is the nearest of, and `sum` [N, width], the average sum of these. Counts are 0 at
    first: with `revive` in `updated`, most codes begin as vectors of the first batch.

    Attributes:
      size: N, the number of codes.
    """

    size: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Quantized:
        def variable(name, value):
            return self.variable(CODEBOOK, name, lambda: value()).value

        def drawn():
            return jax.random.normal(jax.random.key(0), (self.size, self.width))

        codebook = variable("codes", drawn)
        variable("count", lambda: jnp.zeros(self.size))
        variable("sum", lambda: jnp.zeros((self.size, self.width)))
        x = x.astype(jnp.float32)
        codes = nearest(x, codebook)
        vectors = jax.lax.stop_gradient(codebook)[codes]
        commitment = jnp.square(x - vectors).mean(-1)
        return Quantized(x + jax.lax.stop_gradient(vectors - x), codes, commitment)

    def look_up(self, codes: jax.Array) -> jax.Array:
        """The vectors [..., width] of codes [...]."""
        return self.get_variable(CODEBOOK, "codes")[codes]


def nearest(x: Float[Array, "... d"], codebook: Float[Array, "k d"]) -> Int[Array, "..."]:
    """The number of the nearest code of each vector; of equally near ones the first."""
    x, codebook = jax.lax.stop_gradient((x, codebook))
    product = jnp.matmul(x, codebook.T, precision="highest")
    square = jnp.square(codebook).sum(-1).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.argmin(square - 2 * product, axis=-1).astype(jnp.int32)


def updated(
    book: Mapping[str, jax.Array],
    latents: Float[Array, "b ... d"],
    codes: Int[Array, "b ..."],
    valid: Bool[Array, "b ..."] | None,
    key: Key[Array, ""],
    *,
    decay: float = 0.99,
    revive: float = 0.1,
) -> dict[str, jax.Array]:
    """The codebook after a step: moving averages of counts and sums, and their quotient.

    Args:
      latents, codes: the inputs of the quantizer in this step, and what it gave for them.
      valid: the vectors that count; None: all. Without any the codebook stays as it is.
      revive: codes whose count is below this fraction of the mean count (vectors per code) become
        vectors drawn from the batch, with the mean count; 0: none does.

    Source: van den Oord et al. 2017, appendix A.1, with counts smoothed as in sonnet's
    VectorQuantizerEMA; codes that are not used: Dhariwal et al. 2020 (arXiv 2005.00341), section
    3.1, and Zeghidour et al. 2021 (arXiv 2107.03312), section III-C.
    """
    size, width = book["codes"].shape
    x = jax.lax.stop_gradient(latents).astype(jnp.float32).reshape(-1, width)
    weight = jnp.ones(len(x)) if valid is None else valid.reshape(-1).astype(jnp.float32)
    total = weight.sum()
    segment = codes.reshape(-1)
    now = jax.ops.segment_sum(weight, segment, size)
    sums = jax.ops.segment_sum(x * weight[:, None], segment, size)
    count = decay * book["count"] + (1 - decay) * now
    sums = decay * book["sum"] + (1 - decay) * sums
    whole = count.sum()
    smooth = (count + _EPSILON) / (whole + size * _EPSILON) * whole
    new = sums / jnp.where(smooth > 0, smooth, 1.0)[:, None]
    found = {"codes": new, "count": count, "sum": sums}
    if revive:
        mean = total / size
        # The place of the vector with each number among the valid ones.
        draws = jax.random.uniform(key, (size,)) * total
        place = jnp.searchsorted(jnp.cumsum(weight), draws, side="right")
        drawn = x[jnp.minimum(place, len(x) - 1)]
        dead = count < revive * mean
        found = {
            "codes": jnp.where(dead[:, None], drawn, new),
            "count": jnp.where(dead, mean, count),
            "sum": jnp.where(dead[:, None], drawn * mean, sums),
        }
    return {name: jnp.where(total > 0, found[name], book[name]) for name in found}


def usage(
    codes: Int[Array, "b ..."], size: int, valid: Bool[Array, "b ..."] | None = None
) -> dict[str, jax.Array]:
    """`codes_used`, the fraction of the codes that occur, and `perplexity`, 2 to the entropy of
    their distribution in bits: from 1 to `size`."""
    weight = None if valid is None else valid.reshape(-1).astype(jnp.float32)
    counts = jnp.bincount(codes.reshape(-1), weight, length=size).astype(jnp.float32)
    p = counts / jnp.maximum(counts.sum(), 1.0)
    entropy = -jax.scipy.special.xlogy(p, p).sum()
    return {"codes_used": (counts > 0).mean(dtype=jnp.float32), "perplexity": jnp.exp(entropy)}
